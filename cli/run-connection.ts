import { RunClient } from '../proto/run-client.ts';
import type { CommandContext } from './context.ts';

/** Long enough for a coordinator that is being restarted, short enough for a person. */
const CALL_TIMEOUT_MS = 5000;

/** Opens a client of the coordinator the person named, hands it over, closes it on every path. */
export async function withRunClient<T>(context: CommandContext, work: (client: RunClient) => Promise<T>): Promise<T> {
  const client = new RunClient({ address: context.coordinator, timeoutMs: CALL_TIMEOUT_MS }, { clock: context.clock });
  try {
    return await work(client);
  } finally {
    client.close();
  }
}
