/** Maps with at most `limit` at work, and yields results in the order of the input. On an error the others are waited for first. */
export async function* mapInOrder<Input, Output>(
  inputs: AsyncIterable<Input> | Iterable<Input>,
  limit: number,
  map: (input: Input) => Promise<Output>,
): AsyncGenerator<Output> {
  const pending: Promise<Output>[] = [];
  try {
    for await (const input of inputs) {
      const result = map(input);
      // Its turn to be awaited comes later; until then a rejection must not count as unhandled.
      result.catch(() => undefined);
      pending.push(result);
      if (pending.length >= limit) yield await pending.shift()!;
    }
    while (pending.length > 0) yield await pending.shift()!;
  } finally {
    await Promise.allSettled(pending);
  }
}
