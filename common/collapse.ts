/**
 * When a run's representations have collapsed: all inputs mapped to (nearly) one point. Measured by the standard deviation of unit-length
 * embeddings per dimension, times √d: 1 where they are spread over the sphere, 0 where they are all equal (Chen & He 2021, SimSiam, §4.1).
 */

/** The measure, as it is called in step records: `<embedding>.std_ratio`. */
export const STD_RATIO = 'std_ratio';

/**
 * Below this nothing is left that a linear probe could read. Healthy towers can come near it for a while: untrained ones start in a narrow
 * cone (Liang et al. 2022; measured 0.26 to 0.32), and SigLIP's narrow further while its bias is learnt (0.06). Collapsed ones pass it
 * within tens of steps (0.003). So one low measurement is no alarm.
 */
export const STD_RATIO_MIN = 0.02;

/** Measurements in a row that make an alarm. */
export const LOW_MEASUREMENTS_MAX = 3;

/** The embeddings of a step that are (nearly) one point. */
export function collapsedEmbeddings(health: Readonly<Record<string, number>>): string[] {
  return Object.entries(health)
    .filter(([name, value]) => name.endsWith(`.${STD_RATIO}`) && value < STD_RATIO_MIN)
    .map(([name]) => name.slice(0, -STD_RATIO.length - 1));
}

export interface CollapseAlarm {
  /** Embeddings below the limit, and in how many measurements in a row. */
  readonly low: ReadonlyMap<string, number>;
  /** Embeddings the alarm stands for. */
  readonly collapsed: readonly string[];
}

export const NO_ALARM: CollapseAlarm = { low: new Map(), collapsed: [] };

/** The alarm after another measurement: raised after `LOW_MEASUREMENTS_MAX` low ones in a row, gone with the first that is not. */
export function afterMeasurement(alarm: CollapseAlarm, health: Readonly<Record<string, number>>): CollapseAlarm {
  const low = new Map(collapsedEmbeddings(health).map((name) => [name, (alarm.low.get(name) ?? 0) + 1]));
  const collapsed = [...low].filter(([, times]) => times >= LOW_MEASUREMENTS_MAX).map(([name]) => name);
  return { low, collapsed };
}
