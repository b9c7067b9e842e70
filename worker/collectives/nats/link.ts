import { connect, type NatsConnection } from '@nats-io/transport-node';
import { CoveyError } from '../../../common/errors.ts';
import type { Logger } from '../../../common/log.ts';

/** A connection that carries messages and may lose them: what the transfer plane needs of NATS, and where tests inject faults. */
export interface Link {
  /** Largest payload the server takes, bytes. */
  readonly payloadBytesMax: number;
  readonly connected: boolean;
  /** How often the connection was lost. */
  readonly disconnects: number;
  /** Copies the payload before it returns. Silently lost while disconnected. */
  publish(subject: string, header: string, payload: Uint8Array): void;
  /** Returns the function that ends the subscription. */
  subscribe(subject: string, onMessage: LinkListener): () => void;
  /** Resolves once the server has everything sent so far (which says nothing about the receivers). */
  flush(): Promise<void>;
  /** Called after each reconnection. */
  onReconnect(listener: () => void): void;
  close(): Promise<void>;
}

export type LinkListener = (header: string | undefined, payload: Uint8Array) => void;

export interface NatsLinkOptions {
  readonly url: string;
  /** Shown in the server's connection list. */
  readonly name: string;
  /** Default 5 000. Two missed pings are a lost connection. */
  readonly pingIntervalMs?: number;
  readonly connectTimeoutMs?: number;
}

const EMPTY = new Uint8Array(0);

/** The official NATS client. Reconnects for ever; whoever waits has a limit of its own. */
export class NatsLink implements Link {
  readonly #connection: NatsConnection;
  readonly #logger: Logger;
  readonly #reconnectListeners: (() => void)[] = [];
  #connected = true;
  #disconnects = 0;

  private constructor(connection: NatsConnection, logger: Logger) {
    this.#connection = connection;
    this.#logger = logger;
    this.#watch().catch((error: unknown) => this.#logger.warn({ err: error }, 'NATS status stream ended'));
  }

  /** Throws UNAVAILABLE naming the server when it cannot be reached. */
  static async open(options: NatsLinkOptions, logger: Logger): Promise<NatsLink> {
    try {
      const connection = await connect({
        servers: options.url,
        name: options.name,
        noEcho: true,
        timeout: options.connectTimeoutMs ?? 5000,
        pingInterval: options.pingIntervalMs ?? 5000,
        maxPingOut: 2,
        maxReconnectAttempts: -1,
        reconnectTimeWait: 100,
        reconnectJitter: 100,
      });
      return new NatsLink(connection, logger);
    } catch (thrown) {
      const reason = thrown instanceof Error ? thrown.message : String(thrown);
      throw new CoveyError(
        'UNAVAILABLE',
        `Cannot reach NATS at ${redacted(options.url)}: ${reason}; start nats-server or correct the URL`,
        {
          cause: thrown,
          fields: { url: redacted(options.url) },
        },
      );
    }
  }

  get payloadBytesMax(): number {
    return this.#connection.info?.max_payload ?? 2 ** 20;
  }

  get connected(): boolean {
    return this.#connected;
  }

  get disconnects(): number {
    return this.#disconnects;
  }

  publish(subject: string, header: string, payload: Uint8Array): void {
    // While disconnected the client would pile messages up without bound; losing them is what the resends are for.
    if (!this.#connected || this.#connection.isClosed()) return;
    this.#connection.publish(subject, payload.byteLength === 0 ? EMPTY : payload, { reply: header });
  }

  subscribe(subject: string, onMessage: LinkListener): () => void {
    const subscription = this.#connection.subscribe(subject, {
      callback: (error, message) => {
        if (error) this.#logger.warn({ err: error, subject }, 'NATS subscription failed');
        else this.#deliver(onMessage, message.reply, message.data);
      },
    });
    return () => subscription.unsubscribe();
  }

  flush(): Promise<void> {
    return this.#connection.flush();
  }

  onReconnect(listener: () => void): void {
    this.#reconnectListeners.push(listener);
  }

  async close(): Promise<void> {
    this.#connected = false;
    await this.#connection.close();
  }

  /** An exception in a listener would end the client's reading loop, and with it the connection. */
  #deliver(onMessage: LinkListener, header: string | undefined, payload: Uint8Array): void {
    try {
      onMessage(header, payload);
    } catch (thrown) {
      this.#logger.error({ err: thrown, header }, 'a tensor message could not be handled');
    }
  }

  async #watch(): Promise<void> {
    for await (const status of this.#connection.status()) {
      if (status.type === 'disconnect') {
        this.#connected = false;
        this.#disconnects++;
        this.#logger.warn({ server: status.server }, 'NATS connection lost; reconnecting');
      } else if (status.type === 'reconnect') {
        this.#connected = true;
        this.#logger.info({ server: status.server }, 'NATS connection back');
        for (const listener of this.#reconnectListeners) listener();
      } else if (status.type === 'error') {
        this.#logger.warn({ err: status.error }, 'NATS reports an error');
      }
    }
  }
}

/** A URL without its user and password. */
function redacted(url: string): string {
  return url.replace(/\/\/[^@/]*@/, '//');
}
