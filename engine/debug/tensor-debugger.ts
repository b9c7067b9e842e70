import { engine, type Tensor } from '../tf.ts';
import { HandleNet } from './handle-net.ts';
import { type Origin, originHere } from './origin.ts';

/** Tensors of one origin that are alive though nobody said that they should be. */
export interface LeakedTensors extends Origin {
  /** Names of the `tidy` scopes they were made in, outermost first. */
  readonly scope: string;
  readonly shape: readonly number[];
  readonly count: number;
  readonly bytes: number;
}

interface Made extends Origin {
  readonly scope: string;
  readonly shape: readonly number[];
  readonly bytes: number;
}

/** The members of tfjs's engine through which every tensor comes and goes. */
interface Tracking {
  readonly state: { readonly scopeStack: readonly { readonly name: string }[] };
  trackTensor(tensor: Tensor, backend: unknown): void;
  disposeTensor(tensor: Tensor): void;
}

/**
 * Remembers where each live tensor of this thread was made, from its `start` on, on any engine. Costs a stack trace per tensor: for looking for a
 * leak, not for training.
 */
export class TensorDebugger {
  /** Where a backend of ours puts what it holds natively. */
  readonly handles = new HandleNet();
  readonly #alive = new Map<number, Made>();
  readonly #expected = new Set<number>();

  /** Begins; there is no way to stop but the thread's end. */
  start(): void {
    const tracking = engine() as unknown as Tracking;
    const { trackTensor, disposeTensor } = tracking;
    const remember = (tensor: Tensor): void => {
      const { shape, size, dtype } = tensor;
      const bytes = dtype === 'bool' ? size : dtype === 'complex64' ? 8 * size : 4 * size;
      this.#alive.set(tensor.id, { ...originHere(remember), scope: scopeOf(tracking), shape, bytes });
    };
    tracking.trackTensor = (tensor, backend) => {
      trackTensor.call(tracking, tensor, backend);
      remember(tensor);
    };
    tracking.disposeTensor = (tensor) => {
      this.#alive.delete(tensor.id);
      this.#expected.delete(tensor.id);
      disposeTensor.call(tracking, tensor);
    };
  }

  /** What is alive now is meant to be. */
  mark(): void {
    this.#expected.clear();
    for (const id of this.#alive.keys()) this.#expected.add(id);
  }

  /**
   * Made since the last `mark` (or since the start) and alive, by origin and shape, most bytes first. Collected ones that were never disposed are
   * among them.
   */
  leaks(since: 'mark' | 'start' = 'mark'): LeakedTensors[] {
    const groups = new Map<string, { made: Made; count: number }>();
    for (const [id, made] of this.#alive) {
      if (since === 'mark' && this.#expected.has(id)) continue;
      const key = JSON.stringify([made.op, made.shape, made.scope, made.stack]);
      const group = groups.get(key);
      if (group === undefined) groups.set(key, { made, count: 1 });
      else group.count++;
    }
    return [...groups.values()]
      .map(({ made, count }) => ({ ...made, count, bytes: made.bytes * count }))
      .sort((a, b) => b.bytes - a.bytes);
  }

  /** One line per origin, for logs: what leaked, then what the garbage collector had to release. */
  report(since: 'mark' | 'start' = 'mark'): string[] {
    const leaked = this.leaks(since).map(({ op, shape, scope, count, bytes, stack }) => {
      const where = scope === '' ? '' : ` in ${scope}`;
      return `leaked: ${count} × ${op} [${shape}], ${bytes} B${where}, made at ${stack.join(' < ')}`;
    });
    const reclaimed = this.handles
      .reclaimed()
      .map(({ op, count, stack }) => `collected undisposed: ${count} × ${op}, made at ${stack.join(' < ')}`);
    return [...leaked, ...reclaimed];
  }
}

function scopeOf({ state }: Tracking): string {
  const names = state.scopeStack.map(({ name }) => name).filter((name) => !/^unnamed|__op$/.test(name));
  return names.filter((name) => name !== 'default scope').join(' / ');
}

let current: TensorDebugger | undefined;

/** This thread's debugger; undefined unless it was started. */
export function tensorDebugger(): TensorDebugger | undefined {
  return current;
}

/** Starts this thread's debugger, once. */
export function startTensorDebugger(): TensorDebugger {
  if (current === undefined) {
    current = new TensorDebugger();
    current.start();
  }
  return current;
}
