import type { Command } from 'commander';
import { createProcessMetrics } from '../../common/metrics/create-metrics.ts';
import { openObjectStore } from '../../common/objectstore/open.ts';
import { startCoordinator } from '../../coordinator/main.ts';
import { serviceLogger } from '../context.ts';
import { EXIT } from '../exit-codes.ts';
import { storeUrl } from '../local-paths.ts';
import { portNumber } from '../option-values.ts';
import { buildIdentity } from '../package-version.ts';
import { runCommand } from '../run-command.ts';
import { untilAborted } from '../until-aborted.ts';

interface CoordinatorOptions {
  readonly host: string;
  readonly port: number;
  readonly httpPort: number;
  readonly store: string;
  readonly nats: string;
}

export function addCoordinatorCommand(program: Command): void {
  program
    .command('coordinator')
    .description('run the coordinator in the foreground; it keeps nothing: kill it, start another with the same store')
    .option('--host <address>', 'address to listen on', '127.0.0.1')
    .option('--port <n>', 'gRPC port; 0: a free one', portNumber, 7070)
    .option('--http-port <n>', 'port of /metrics, health and JSON; 0: a free one', portNumber, 7071)
    .requiredOption('--store <url>', 'where runs are kept: a folder, file:///… or s3://bucket/prefix')
    .requiredOption('--nats <url>', 'NATS server that the workers are told to use')
    .action(
      runCommand<CoordinatorOptions>(async (context, _args, options) => {
        const logger = serviceLogger(context, 'coordinator');
        const { host, port, httpPort, nats } = options;
        const metrics = createProcessMetrics(buildIdentity(context.env));
        const { clock, env } = context;
        const openStore = (url: string) => openObjectStore(url, { env, logger, clock, metrics: metrics.store });
        const store = openStore(storeUrl(options.store));
        try {
          const modules = { store, openStore, logger, clock, registry: metrics.registry };
          const coordinator = await startCoordinator({ host, port, httpPort, natsUrl: nats }, modules);
          try {
            const { grpcAddress, httpUrl } = coordinator;
            context.output.result(
              { coordinator: grpcAddress, http: httpUrl },
              `coordinator ${grpcAddress}, http ${httpUrl}`,
            );
            await untilAborted(context.signal);
          } finally {
            await coordinator.close();
          }
        } finally {
          await store.close();
        }
        return EXIT.ok;
      }),
    );
}
