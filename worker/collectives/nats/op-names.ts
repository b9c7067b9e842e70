/** State transfers have op names of their own, so that they never meet a collective's number. */
export function stateOp(rank: number, count: number): string {
  return `s${rank}-${count}`;
}

export function isStateOp(op: string): boolean {
  return op.startsWith('s');
}

/** One transfer of an operation: a part of it, from or to a peer. */
export function transferKey(op: string, part: number, peer: number): string {
  return `${op}.${part}.${peer}`;
}
