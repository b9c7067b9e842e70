import type {
  LayerDecayConfig,
  LockConfig,
  OptimizerConfig,
  ParameterGroupConfig,
} from '../common/config/optimizer-config.ts';
import { CoveyError } from '../common/errors.ts';
import { type TowerPlace, towerPlace } from './clip/tower-place.ts';
import { type NamedShape, parameterGroups } from './parameter-groups.ts';

/** How one parameter is trained. */
export interface ParameterRule {
  readonly weightDecay: number;
  /** Multiplies the learning rate. */
  readonly lrScale: number;
  /** Not trained at all: no gradient, no slots, never written. */
  readonly frozen: boolean;
  /** Has a trust ratio where the optimiser has such. */
  readonly adapted: boolean;
}

/** The part of `train` that says so. */
export interface ParameterRulesConfig {
  readonly optimizer: Pick<OptimizerConfig, 'weightDecay' | 'decayRule'>;
  readonly groups?: readonly ParameterGroupConfig[] | undefined;
  readonly layerDecay?: LayerDecayConfig | undefined;
  readonly lock?: LockConfig | undefined;
}

type Tower = TowerPlace['tower'];
const TOWERS: readonly Tower[] = ['image', 'text'];

/**
 * Each parameter's rule, in order: the decay rule, then layer-wise decay, then locked towers, then the groups by name, the later over the earlier.
 *
 * @throws CONFIG_INVALID naming each group that matches nothing, a lock that does not fit the tower, and a model of which nothing is left to train
 */
export function parameterRules(parameters: readonly NamedShape[], config: ParameterRulesConfig): ParameterRule[] {
  const { optimizer, groups = [], layerDecay, lock = {} } = config;
  const decayed = parameterGroups(parameters, optimizer.decayRule);
  const blocks = blockCounts(parameters);
  const problems: Problem[] = [...lockProblems(lock, blocks), ...groupProblems(groups, parameters)];
  const patterns = groups.map(({ match }) => new RegExp(match));
  const rules = parameters.map(({ name }, index): ParameterRule => {
    const place = towerPlace(name);
    const matching = groups.filter((_, group) => patterns[group]!.test(name));
    const last = <K extends keyof ParameterGroupConfig>(key: K) =>
      matching.findLast((one) => one[key] !== undefined)?.[key];
    const scale = place ? layerScale(place, blocks[place.tower], layerDecay) : 1;
    return {
      weightDecay: last('weightDecay') ?? (decayed[index] ? optimizer.weightDecay : 0),
      lrScale: scale * (last('lrScale') ?? 1),
      frozen: last('frozen') ?? (place !== undefined && isLocked(place, blocks[place.tower], lock[place.tower])),
      adapted: decayed[index]!,
    };
  });
  if (problems.length === 0 && rules.every((rule) => rule.frozen)) {
    problems.push({ path: 'train.lock', message: 'nothing is left to train: every parameter is frozen', value: lock });
  }
  if (problems.length > 0) {
    const lines = problems.map(({ path, message }) => `${path}: ${message}`);
    throw new CoveyError('CONFIG_INVALID', `Cannot train: ${lines.join('; ')}`, { fields: { problems } });
  }
  return rules;
}

interface Problem {
  readonly path: string;
  readonly message: string;
  readonly value: unknown;
}

function blockCounts(parameters: readonly NamedShape[]): Record<Tower, number> {
  const counts = { image: 0, text: 0 };
  for (const { name } of parameters) {
    const place = towerPlace(name);
    if (place?.block !== undefined) counts[place.tower] = Math.max(counts[place.tower], place.block + 1);
  }
  return counts;
}

/** open_clip's groups (`VisionTransformer.lock`, `lock_text_tower`): embeddings; each block but the last; that one with the final norm; projection. */
function lockGroup({ part, block }: TowerPlace, blocks: number): number {
  if (part === 'embedding') return 0;
  if (part === 'projection') return blocks + 1;
  return part === 'norm' ? blocks : block! + 1;
}

function isLocked(place: TowerPlace, blocks: number, lock: LockConfig[Tower]): boolean {
  if (lock === undefined) return false;
  return lock === true || lockGroup(place, blocks) < blocks + 2 - lock.unlockedGroups;
}

function lockProblems(lock: LockConfig, blocks: Readonly<Record<Tower, number>>): Problem[] {
  return TOWERS.flatMap((tower) => {
    const wanted = lock[tower];
    if (wanted === undefined || wanted === true || wanted.unlockedGroups === 0) return [];
    const path = `train.lock.${tower}.unlockedGroups`;
    const value = wanted.unlockedGroups;
    if (blocks[tower] === 0) return [{ path, message: 'only a tower with blocks can be unlocked in part', value }];
    const count = blocks[tower] + 2;
    return value > count ? [{ path, message: `the ${tower} tower has ${count} groups, not ${value}`, value }] : [];
  });
}

function groupProblems(groups: readonly ParameterGroupConfig[], parameters: readonly NamedShape[]): Problem[] {
  return groups.flatMap(({ match }, index) => {
    const pattern = new RegExp(match);
    if (parameters.some(({ name }) => pattern.test(name))) return [];
    return [{ path: `train.groups.${index}.match`, message: `/${match}/ matches no parameter`, value: match }];
  });
}

/** Layer-wise learning rates (BEiT `LayerDecayValueAssigner`, MAE `lr_decay.py`): embeddings are layer 0, block i is i + 1, the rest is the head. */
function layerScale({ tower, part, block }: TowerPlace, blocks: number, decay: LayerDecayConfig | undefined): number {
  const perLayer = (typeof decay === 'number' ? decay : decay?.[tower]) ?? 1;
  const head = blocks + 1;
  const layer = part === 'embedding' ? 0 : part === 'block' ? block! + 1 : head;
  return perLayer ** (head - layer);
}
