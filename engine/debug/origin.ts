import path from 'node:path';
import { fileURLToPath } from 'node:url';

/** Where something was made. */
export interface Origin {
  /** Name of the op as its caller knows it; `… gradient` for what a fused op's backward made. */
  readonly op: string;
  /** Function, file and line, innermost first, from the op's caller outwards. */
  readonly stack: readonly string[];
}

interface Frame {
  readonly name: string;
  readonly file: string;
  readonly at: string;
}

const ENGINE_FOLDER = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const ROOT = path.dirname(ENGINE_FOLDER);
const FUSED_FOLDER = path.join(ENGINE_FOLDER, 'fused');
/** The op and a few of its callers are in reach of this even from inside a sweep. */
const FRAMES_READ = 30;
const FRAMES_KEPT = 4;

/** Reads the present call stack; `skip` is the function whose callers count. Costs tens of microseconds. */
export function originHere(skip: (...args: never[]) => unknown): Origin {
  const holder: { stack?: string } = {};
  const limit = Error.stackTraceLimit;
  Error.stackTraceLimit = FRAMES_READ;
  Error.captureStackTrace(holder, skip);
  const frames = parse(holder.stack ?? '');
  Error.stackTraceLimit = limit;
  const outside = frames.findIndex((frame) => !isEngine(frame));
  const callers = outside === -1 ? [] : frames.slice(outside);
  const inner = outside === -1 ? frames : frames.slice(0, outside);
  return { op: opName(inner), stack: callers.slice(0, FRAMES_KEPT).map(({ name, at }) => `${name} (${at})`) };
}

function opName(inner: readonly Frame[]): string {
  const fused = inner.find(({ file }) => file.startsWith(FUSED_FOLDER));
  if (fused !== undefined) {
    const name = path.basename(fused.file).replace(/\.[jt]s$/, '');
    return fused.name.endsWith('backward') ? `${name} gradient` : name;
  }
  // tfjs's own frames are on top; the last of them is what was called.
  const own = inner.findIndex(({ file }) => !isTfjs(file));
  const called = inner[own === 0 || own === -1 ? inner.length - 1 : own - 1];
  return called?.name.replace(/^.*\./, '').replace(/_*(op)?$/, '') || 'unknown';
}

/** tfjs itself or one of its backends' packages: tfjs-node makes tensors inside its kernels. */
function isTfjs(file: string): boolean {
  return /[/\\](tfjs\.mjs$|@tensorflow[/\\])/.test(file);
}

function isEngine({ file }: Frame): boolean {
  return isTfjs(file) || file.startsWith(ENGINE_FOLDER + path.sep);
}

function parse(stack: string): Frame[] {
  return stack.split('\n').flatMap((line) => {
    const match = /^\s+at (?:(?:async |new )?(.+?) \()?(?:file:\/\/)?([^()]+?):(\d+):\d+\)?$/.exec(line);
    if (match === null) return [];
    const [, name = '(anonymous)', file = '', row] = match;
    return [{ name: name.replace(/ \[as .*\]$/, ''), file, at: `${path.relative(ROOT, file)}:${row}` }];
  });
}
