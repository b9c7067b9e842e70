import { defineConfig } from 'vitest/config';

// Two groups: `unit` in parallel, then `e2e` (whole clusters of processes, which need the machine to themselves) one file at a time.
export default defineConfig({
  test: {
    // Processes, not threads: the native engine and process-wide signals are not shared between test files.
    pool: 'forks',
    maxWorkers: 2,
    testTimeout: 20_000,
    hookTimeout: 60_000,
    teardownTimeout: 10_000,
    // The tfjs bundle is already plain JavaScript; transforming its 2 MB again for each worker only costs time.
    server: { deps: { external: [/\/build\/tfjs\.mjs$/] } },
    projects: [
      {
        extends: true,
        test: { name: 'unit', include: ['tests/**/*.test.ts'], exclude: ['tests/e2e/**'], sequence: { groupOrder: 0 } },
      },
      {
        extends: true,
        test: {
          name: 'e2e',
          include: ['tests/e2e/**/*.test.ts'],
          fileParallelism: false,
          testTimeout: 300_000,
          hookTimeout: 120_000,
          sequence: { groupOrder: 1 },
        },
      },
    ],
  },
});
