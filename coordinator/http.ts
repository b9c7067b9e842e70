import type { AddressInfo } from 'node:net';
import { type ServerType, serve } from '@hono/node-server';
import { Hono } from 'hono';
import type { Registry } from 'prom-client';
import { CoveyError } from '../common/errors.ts';
import type { Coordinator } from './coordinator.ts';

export interface HttpServerOptions {
  readonly host: string;
  /** 0: any free port. */
  readonly port: number;
}

export interface HttpServerModules {
  readonly coordinator: Coordinator;
  readonly registry: Registry;
  /** False while starting and closing. */
  readonly isReady: () => boolean;
}

/** `/metrics`, `/healthz`, `/readyz`, `/api/runs`, `/api/runs/<run>`. Read-only. */
export function httpRoutes({ coordinator, registry, isReady }: HttpServerModules): Hono {
  const routes = new Hono();
  routes.get('/healthz', (context) => context.text('ok\n'));
  routes.get('/readyz', (context) => (isReady() ? context.text('ready\n') : context.text('not ready\n', 503)));
  routes.get('/metrics', async (context) =>
    context.body(await registry.metrics(), 200, { 'content-type': registry.contentType }),
  );
  routes.get('/api/runs', (context) => context.json({ runs: coordinator.list() }));
  routes.get('/api/runs/:run', (context) => context.json(coordinator.get(context.req.param('run')).snapshot()));
  routes.onError((thrown, context) => {
    const error = CoveyError.from(thrown);
    return context.json({ code: error.code, message: error.message }, error.code === 'NOT_FOUND' ? 404 : 500);
  });
  return routes;
}

/** Serves until closed. UNAVAILABLE where the port is taken. */
export async function listenHttp(
  options: HttpServerOptions,
  modules: HttpServerModules,
): Promise<{ url: string; close(): Promise<void> }> {
  const routes = httpRoutes(modules);
  const { host, port } = options;
  const server = await new Promise<ServerType>((resolve, reject) => {
    const listening = serve({ fetch: routes.fetch, hostname: host, port }, () => resolve(listening));
    listening.once('error', (error: Error) => {
      reject(
        new CoveyError('UNAVAILABLE', `Cannot listen on ${host}:${port}: ${error.message}; choose another port`, {
          cause: error,
        }),
      );
    });
  });
  const url = `http://${host}:${(server.address() as AddressInfo).port}`;
  const close = () =>
    new Promise<void>((resolve) => {
      server.close(() => resolve());
      // Idle keep-alive connections (a scraper's) would hold the server open.
      if ('closeAllConnections' in server) server.closeAllConnections();
    });
  return { url, close };
}
