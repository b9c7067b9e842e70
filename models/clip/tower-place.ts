/** Where a parameter sits in its tower, from open_clip's key. */
export interface TowerPlace {
  readonly tower: 'image' | 'text';
  /** `embedding`: patches, tokens, class, positions and the norm before the blocks. `norm`: the one after them. */
  readonly part: 'embedding' | 'block' | 'norm' | 'projection';
  /** 0-based; only of `block`. */
  readonly block?: number;
}

const NO_TOWER = /^logit_(scale|bias)$/;
const BLOCK = /(^|\.)transformer\.resblocks\.(\d+)\./;
const PROJECTION = /^(visual\.proj|text_projection)$/;
const FINAL_NORM = /^(visual\.ln_post|ln_final)\./;

/** Undefined for what belongs to no tower: the scale and bias of the logits. */
export function towerPlace(name: string): TowerPlace | undefined {
  if (NO_TOWER.test(name)) return undefined;
  const tower = name.startsWith('visual.') ? 'image' : 'text';
  const block = BLOCK.exec(name)?.[2];
  if (block !== undefined) return { tower, part: 'block', block: Number(block) };
  if (PROJECTION.test(name)) return { tower, part: 'projection' };
  return { tower, part: FINAL_NORM.test(name) ? 'norm' : 'embedding' };
}
