/** Where a parameter sits in its tower, from open_clip's key. */
export interface TowerPlace {
  readonly tower: 'image' | 'text';
  /** `embedding`: patches, tokens, class, positions and the norm before the blocks, a ResNet's stem. `norm`: the one after them. */
  readonly part: 'embedding' | 'block' | 'norm' | 'projection';
  /** 0-based; only of `block`. A ResNet's four stages are its blocks. */
  readonly block?: number;
}

const IN_A_TOWER = /^(visual\.|transformer\.|ln_final\.|token_embedding\.|positional_embedding$|text_projection$)/;
const BLOCK = /(^|\.)transformer\.resblocks\.(\d+)\./;
const STAGE = /^visual\.layer([1-4])\./;
/** What follows the last norm: projections and attention pools. */
const PROJECTION = /^(visual\.proj$|text_projection$|visual\.attnpool\.|visual\.attn_pool\.)/;
const FINAL_NORM = /^(visual\.ln_post|ln_final)\./;

/** Undefined for what belongs to no tower: the scale and bias of the logits, heads that an objective puts on top. */
export function towerPlace(name: string): TowerPlace | undefined {
  if (!IN_A_TOWER.test(name)) return undefined;
  const tower = name.startsWith('visual.') ? 'image' : 'text';
  const block = BLOCK.exec(name)?.[2];
  if (block !== undefined) return { tower, part: 'block', block: Number(block) };
  const stage = STAGE.exec(name)?.[1];
  if (stage !== undefined) return { tower, part: 'block', block: Number(stage) - 1 };
  if (PROJECTION.test(name)) return { tower, part: 'projection' };
  return { tower, part: FINAL_NORM.test(name) ? 'norm' : 'embedding' };
}
