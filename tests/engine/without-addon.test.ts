import { afterAll, beforeAll, expect, it, vi } from 'vitest';
import { loadEngine } from '../../engine/index.ts';

beforeAll(() => {
  vi.stubEnv('COVEY_ADDON', '/no/such/addon.node');
});
afterAll(() => {
  vi.unstubAllEnvs();
});

it('without the addon auto is wasm', async () => {
  const engine = await loadEngine({ engine: 'auto', threads: 1 });
  expect(engine.name).toBe('wasm');
  engine.close();
});

it('without the addon torch is refused, with what builds it', async () => {
  await expect(loadEngine({ engine: 'torch', threads: 1 })).rejects.toThrow(
    /no\/such\/addon\.node is missing.*npm run build.*engine `wasm`/,
  );
});
