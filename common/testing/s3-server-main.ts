import { parseArgs } from 'node:util';
import { NO_FAULTS } from './s3-faults.ts';
import { startS3Server } from './s3-server.ts';

/**
 * The test S3 server as a process of its own, for end-to-end tests and demonstrations; not for production: memory only.
 *
 *   node dist/common/testing/s3-server-main.js --bucket covey [--port 0] [--seed 0] [--faults '{"unavailable":0.1}']
 *
 * Prints one line of JSON when it listens: `{"url", "env"}`; `env` holds the COVEY_S3_* variables for its clients. The
 * credentials come from COVEY_S3_ACCESS_KEY and COVEY_S3_SECRET_KEY where set. PUT /-/faults replaces the faults while it runs.
 */
const { values } = parseArgs({
  options: {
    bucket: { type: 'string', multiple: true, default: ['covey'] },
    port: { type: 'string', default: '0' },
    seed: { type: 'string', default: '0' },
    faults: { type: 'string', default: '{}' },
  },
});

const { COVEY_S3_ACCESS_KEY: accessKey, COVEY_S3_SECRET_KEY: secretKey, COVEY_S3_REGION: region } = process.env;
const server = await startS3Server({
  port: Number(values.port),
  buckets: values.bucket,
  seed: Number(values.seed),
  ...(accessKey ? { accessKey } : {}),
  ...(secretKey ? { secretKey } : {}),
  ...(region ? { region } : {}),
});
server.faults = { ...NO_FAULTS, ...(JSON.parse(values.faults) as object) };
process.stdout.write(`${JSON.stringify({ url: server.url, env: server.env })}\n`);

for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => {
    void server.stop().then(() => process.exit(0));
  });
}
