import { readFileSync } from 'node:fs';
import { link, mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import type { Clock } from '../clock.ts';
import { CoveyError, throwIfAborted } from '../errors.ts';
import type { RandomStream } from '../random.ts';

/**
 * An exclusive lock between processes, made of files, that a crash cannot leave shut.
 *
 * The lock is a folder of numbered tickets. The highest number is the lock: its file names the holder, or says "free". To take
 * it, a process creates the next number with link(2), which fails where that number exists; so of any number of processes that
 * saw the same free (or dead) ticket exactly one gets the next. Nothing is ever "stolen" by deleting a file that another may
 * just have replaced, which is the flaw of plain lock files. Old tickets are removed by the holder, well behind the highest.
 */
export interface KeyLockOptions {
  /** Folder of this lock's tickets. Created when missing. */
  readonly folder: string;
  /** How long to wait for a living holder. */
  readonly timeoutMs: number;
  readonly signal?: AbortSignal;
}

export interface KeyLockModules {
  readonly clock: Clock;
  readonly random: Pick<RandomStream, 'uniform'>;
}

interface Holder {
  readonly pid: number;
  readonly host: string;
  /** Start of the process in clock ticks since boot (Linux), so that a reused pid is not taken for the holder; else 0. */
  readonly startTicks: number;
}

const FREE = 'free';
/** A ticket this far behind the highest cannot be missed by a reader of the folder any more. */
const TICKETS_KEPT = 16;
const POLL_MS_MAX = 10;
/** A holder on another host cannot be probed; its ticket counts as dead after this. Locks are held for milliseconds. */
const FOREIGN_STALE_MS = 60_000;

/** Runs `body` while holding the lock. Throws UNAVAILABLE when a living holder keeps it past `timeoutMs`. */
export async function withKeyLock<T>(
  options: KeyLockOptions,
  modules: KeyLockModules,
  body: () => Promise<T>,
): Promise<T> {
  const ticket = await acquire(options, modules);
  try {
    return await body();
  } finally {
    // A rename, not an unlink: the number must stay, or a slow process could create it again.
    await replaceTicket(options.folder, ticket, FREE);
  }
}

async function acquire(options: KeyLockOptions, { clock, random }: KeyLockModules): Promise<number> {
  const { folder, signal } = options;
  await mkdir(folder, { recursive: true });
  const deadlineAtMs = clock.now() + options.timeoutMs;
  const firstSeen = new Map<number, number>();
  for (;;) {
    throwIfAborted(signal);
    const highest = await highestTicket(folder);
    const state = highest === 0 ? FREE : await readTicket(folder, highest);
    if (!firstSeen.has(highest)) firstSeen.set(highest, clock.now());
    const seenForMs = clock.now() - firstSeen.get(highest)!;
    if (state === FREE || isDead(state, seenForMs)) {
      const ticket = highest + 1;
      if (await createTicket(folder, ticket)) {
        // A process that slept since its look at the folder may have created a number that was long removed.
        if ((await highestTicket(folder)) === ticket) {
          await removeOldTickets(folder, ticket);
          return ticket;
        }
        await rm(ticketPath(folder, ticket), { force: true });
      }
      continue;
    }
    if (clock.now() >= deadlineAtMs) throw lockTimeout(options, state);
    await clock.sleep(random.uniform(1, POLL_MS_MAX), signal).catch((error: unknown) => {
      throwIfAborted(signal);
      throw error;
    });
  }
}

function lockTimeout(options: KeyLockOptions, holder: Holder): CoveyError {
  return new CoveyError(
    'UNAVAILABLE',
    `Cannot lock ${options.folder}: process ${holder.pid} on ${holder.host} holds it for more than ${options.timeoutMs} ms; end that process if it hangs`,
    { fields: { folder: options.folder, holder, timeoutMs: options.timeoutMs } },
  );
}

const ticketPath = (folder: string, ticket: number) => path.join(folder, String(ticket));

async function ticketsIn(folder: string): Promise<number[]> {
  const names = await readdir(folder);
  return names.filter((name) => /^[1-9]\d*$/.test(name)).map(Number);
}

async function highestTicket(folder: string): Promise<number> {
  return (await ticketsIn(folder)).reduce((highest, ticket) => Math.max(highest, ticket), 0);
}

async function readTicket(folder: string, ticket: number): Promise<Holder | typeof FREE> {
  try {
    const text = await readFile(ticketPath(folder, ticket), 'utf8');
    return text === FREE ? FREE : (JSON.parse(text) as Holder);
  } catch (error) {
    // Removed since the look at the folder: a higher one exists, and the next look finds it. Waiting is the safe answer.
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return thisProcess();
    throw error;
  }
}

/** Creates the ticket with its whole content, or returns false where it exists. */
async function createTicket(folder: string, ticket: number): Promise<boolean> {
  const temporary = await writeTemporary(folder, JSON.stringify(thisProcess()));
  try {
    await link(temporary, ticketPath(folder, ticket));
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw error;
  } finally {
    await rm(temporary, { force: true });
  }
}

async function replaceTicket(folder: string, ticket: number, content: string): Promise<void> {
  await rename(await writeTemporary(folder, content), ticketPath(folder, ticket));
}

async function writeTemporary(folder: string, content: string): Promise<string> {
  const temporary = path.join(folder, `new-${process.pid}-${crypto.randomUUID()}`);
  await writeFile(temporary, content);
  return temporary;
}

async function removeOldTickets(folder: string, held: number): Promise<void> {
  for (const ticket of await ticketsIn(folder)) {
    if (ticket <= held - TICKETS_KEPT) await rm(ticketPath(folder, ticket), { force: true });
  }
}

let self: Holder | undefined;

function thisProcess(): Holder {
  self ??= { pid: process.pid, host: os.hostname(), startTicks: startTicksOf(process.pid) };
  return self;
}

function isDead(holder: Holder, seenForMs: number): boolean {
  if (holder.host !== os.hostname()) return seenForMs > FOREIGN_STALE_MS;
  try {
    process.kill(holder.pid, 0);
  } catch (error) {
    // EPERM: it lives, under another user.
    if ((error as NodeJS.ErrnoException).code === 'ESRCH') return true;
  }
  const startTicks = startTicksOf(holder.pid);
  return startTicks !== 0 && holder.startTicks !== 0 && startTicks !== holder.startTicks;
}

/** Field 22 of /proc/PID/stat, or 0 where it cannot be read. The name in field 2 may hold spaces, so count from its closing bracket. */
function startTicksOf(pid: number): number {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19] ?? 0);
  } catch {
    // No /proc on this system, or the process is gone: the pid alone decides.
    return 0;
  }
}
