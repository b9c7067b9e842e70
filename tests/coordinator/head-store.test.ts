import { beforeEach, describe, expect, it } from 'vitest';
import { systemClock } from '../../common/clock.ts';
import { CoveyError } from '../../common/errors.ts';
import type { ObjectStore, PutOptions } from '../../common/objectstore/object-store.ts';
import { openObjectStore } from '../../common/objectstore/open.ts';
import { newRun } from '../../coordinator/core/run-state.ts';
import type { HeadContent } from '../../coordinator/core/types.ts';
import { HeadStore, headKey } from '../../coordinator/head-store.ts';
import { settings } from './transcript.ts';

const content: HeadContent = newRun(settings({}), 0).head;
let count = 0;
let store: ObjectStore;

beforeEach(() => {
  count += 1;
  store = openObjectStore(`memory://head-store-${process.pid}-${count}`);
});

function headOf(coordinatorId: string, over: ObjectStore = store): HeadStore {
  return new HeadStore({ run: 'r', coordinatorId }, { store: over, clock: systemClock });
}

/** The store, but a successful conditional put's answer is lost as often as told, and the client's own retry then loses. */
function losingAnswers(times: number): ObjectStore {
  let left = times;
  return new Proxy(store, {
    get(target, name) {
      const own: unknown = Reflect.get(target, name, target);
      if (name !== 'put') return typeof own === 'function' ? own.bind(target) : own;
      return async (key: string, body: Uint8Array, options: PutOptions) => {
        const answer = await target.put(key, body, options);
        left -= 1;
        if (left >= 0) await target.put(key, body, options);
        return answer;
      };
    },
  });
}

describe('HEAD', () => {
  it('is created once', async () => {
    await headOf('a').create(content, 'sha');
    await expect(headOf('b').create(content, 'sha')).rejects.toMatchObject({ code: 'ALREADY_EXISTS' });
  });

  it('is advanced by exactly one of two that know the same version, and the other learns by whom', async () => {
    const [a, b] = [headOf('a'), headOf('b')];
    await a.create(content, 'sha');
    await b.read();
    const outcomes = await Promise.allSettled([
      a.write({ ...content, generation: 1 }),
      b.write({ ...content, generation: 1 }),
    ]);
    expect(outcomes.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
    const lost = outcomes.find(({ status }) => status === 'rejected') as PromiseRejectedResult;
    const winner = (await headOf('c').read())!.coordinatorId;
    expect(lost.reason).toMatchObject({ code: 'PRECONDITION_FAILED', fields: { by: winner } });
    expect((await headOf('c').read())!.version).toBe(2);
  });

  it('knows its own write again when the answer to it was lost', async () => {
    await headOf('a').create(content, 'sha');
    const head = headOf('b', losingAnswers(1));
    await head.read();
    await expect(head.write({ ...content, generation: 1 })).resolves.toMatchObject({ version: 2, coordinatorId: 'b' });
    await expect(head.write({ ...content, generation: 2 })).resolves.toMatchObject({ version: 3 });
  });

  it('says so when HEAD was moved by another hand', async () => {
    const a = headOf('a');
    await a.create(content, 'sha');
    expect(await a.moved()).toBe(false);
    const b = headOf('b');
    await b.read();
    await b.write(content);
    expect(await a.moved()).toBe(true);
  });

  it('refuses an object that is not a HEAD', async () => {
    await store.put(headKey('r'), Buffer.from('{"format":1,"run":"r"}'));
    const refused = await headOf('a')
      .read()
      .catch((thrown: unknown) => thrown);
    expect(CoveyError.is(refused, 'DATA_CORRUPT')).toBe(true);
  });
});
