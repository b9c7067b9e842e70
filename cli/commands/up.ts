import path from 'node:path';
import type { Command } from 'commander';
import { startLocalCluster } from '../cluster/local-cluster.ts';
import { EXIT } from '../exit-codes.ts';
import { storeUrl } from '../local-paths.ts';
import { portNumber, wholeNumber } from '../option-values.ts';
import { runCommand } from '../run-command.ts';
import { untilAborted } from '../until-aborted.ts';

interface UpOptions {
  readonly workers: number;
  readonly store: string;
  readonly port: number;
  readonly httpPort: number;
  readonly nats?: string;
  readonly threads?: number;
}

export function addUpCommand(program: Command): void {
  program
    .command('up')
    .description('start a cluster on this machine: nats-server, coordinator, workers; Ctrl-C ends it in order')
    .option('-n, --workers <n>', 'worker processes', wholeNumber(0, 256), 2)
    .option('--store <url>', 'where runs are kept: a folder, file:///… or s3://bucket/prefix', '.covey/store')
    .option('--port <n>', 'gRPC port of the coordinator; 0: a free one', portNumber, 7070)
    .option('--http-port <n>', 'port of /metrics, health and JSON; 0: a free one', portNumber, 7071)
    .option('--nats <url>', 'use this NATS server instead of starting one')
    .option('--threads <n>', 'threads of each worker (default: the cores shared out)', wholeNumber(1, 1024))
    .action(
      runCommand<UpOptions>(async (context, _args, options) => {
        const { output, signal } = context;
        const logFolder = path.resolve('.covey/logs');
        const cluster = await startLocalCluster(
          {
            workers: options.workers,
            store: storeUrl(options.store),
            port: options.port,
            httpPort: options.httpPort,
            logFolder,
            ...(options.nats === undefined ? {} : { natsUrl: options.nats }),
            ...(options.threads === undefined ? {} : { threads: options.threads }),
          },
          context,
        );
        try {
          const { coordinatorAddress, httpUrl, natsUrl, workers } = cluster;
          output.result(
            {
              coordinator: coordinatorAddress,
              http: httpUrl,
              nats: natsUrl,
              store: storeUrl(options.store),
              logs: workers.map((one) => one.logFile),
            },
            [
              `coordinator  ${coordinatorAddress}`,
              `http         ${httpUrl} (/metrics, /healthz, /api/runs)`,
              `nats         ${natsUrl}`,
              `store        ${storeUrl(options.store)}`,
              `workers      ${workers.length}, logs in ${logFolder}`,
            ].join('\n'),
          );
          output.message(
            `Start a run with \`covey launch run.yaml --coordinator ${coordinatorAddress}\`. Ctrl-C ends the cluster.`,
          );
          await untilAborted(signal);
          output.message('stopping …');
        } finally {
          await cluster.close();
        }
        return EXIT.ok;
      }),
    );
}
