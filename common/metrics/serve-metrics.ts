import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Registry } from 'prom-client';
import { CoveyError } from '../errors.ts';

export interface ServeMetricsOptions {
  /** Default 127.0.0.1: metrics carry no secrets, but are nobody else's business either. */
  readonly host?: string;
  /** 0 (default) takes a free port. */
  readonly port?: number;
}

export interface ServeMetricsModules {
  readonly registry: Registry;
  /** What /healthz answers: undefined is healthy (200), text is why not (503). Default: always healthy. */
  readonly health?: () => string | undefined;
}

export interface MetricsServer {
  /** http://HOST:PORT */
  readonly url: string;
  readonly port: number;
  close(): Promise<void>;
}

/** The registry as Prometheus reads it, with its content type; for servers that have their own routes. */
export async function metricsPage(
  registry: Registry,
): Promise<{ readonly contentType: string; readonly text: string }> {
  return { contentType: registry.contentType, text: await registry.metrics() };
}

/** Serves GET /metrics and GET /healthz. The caller closes it. Throws UNAVAILABLE where the port is taken. */
export async function serveMetrics(options: ServeMetricsOptions, modules: ServeMetricsModules): Promise<MetricsServer> {
  const server = createServer((request, response) => {
    answer(request.method ?? 'GET', request.url ?? '/', response, modules).catch((error: unknown) => {
      if (!response.headersSent) response.writeHead(500);
      response.end(`cannot collect metrics: ${error instanceof Error ? error.message : String(error)}\n`);
    });
  });
  const host = options.host ?? '127.0.0.1';
  await new Promise<void>((resolve, reject) => {
    server.once('error', (cause) => {
      reject(
        new CoveyError(
          'UNAVAILABLE',
          `Cannot serve metrics on ${host}:${options.port ?? 0}: ${cause.message}; choose another port`,
          { cause },
        ),
      );
    });
    server.listen(options.port ?? 0, host, resolve);
  });
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://${host.includes(':') ? `[${host}]` : host}:${port}`,
    port,
    close: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

async function answer(
  method: string,
  url: string,
  response: ServerResponse,
  { registry, health }: ServeMetricsModules,
): Promise<void> {
  const route = url.split('?')[0];
  if (method !== 'GET' && method !== 'HEAD') {
    response.writeHead(405, { allow: 'GET, HEAD' }).end();
  } else if (route === '/metrics') {
    const { contentType, text } = await metricsPage(registry);
    response.writeHead(200, { 'content-type': contentType }).end(text);
  } else if (route === '/healthz') {
    const problem = health?.();
    response.writeHead(problem === undefined ? 200 : 503, { 'content-type': 'text/plain' }).end(`${problem ?? 'ok'}\n`);
  } else {
    response.writeHead(404).end();
  }
}
