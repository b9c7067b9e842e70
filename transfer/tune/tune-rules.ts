import { type ParameterRule, parameterRules } from '../../models/parameter-rules.ts';
import type { TransferNetwork } from '../network.ts';
import type { TuneRecipe } from './tune-recipe.ts';

/** How each of the network's parameters is trained. The head and an adapter have the whole learning rate. */
export function tuneRules(network: TransferNetwork, recipe: TuneRecipe): ParameterRule[] {
  const { method, weightDecay, backboneLrScale, layerDecay, unlockedGroups } = recipe;
  const rules = parameterRules(network.parameters, {
    optimizer: { weightDecay, decayRule: 'v4' },
    groups: [{ match: '^visual\\.', lrScale: backboneLrScale }],
    layerDecay: { image: layerDecay },
    lock: unlockedGroups === undefined ? {} : { image: { unlockedGroups } },
  });
  return rules.map((rule, i) => {
    const { name } = network.parameters[i]!;
    if (method === 'full' || !name.startsWith('visual.')) return rule;
    const trained = method === 'adapter' && network.adapter?.trainsToo(name) === true;
    return { ...rule, frozen: !trained, lrScale: 1 };
  });
}

/** Numbers that are trained in the backbone and its adapter, and those of the backbone itself: the head belongs to the task. */
export function trainedCounts(network: TransferNetwork, rules: readonly ParameterRule[]) {
  let trained = 0;
  let backbone = 0;
  network.parameters.forEach(({ name, variable }, i) => {
    if (network.source.weights.has(name)) backbone += variable.size;
    if (!name.startsWith('head.') && !rules[i]!.frozen) trained += variable.size;
  });
  return { trained, backbone };
}
