import type { MemoryProfile } from '../../engine/profile/memory-profile.ts';
import { formatBytes } from '../format.ts';

const WIDTH = 72;
const HEIGHT = 8;
const EIGHTHS = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const PHASE_MARKS = { forward: 'f', backward: 'b', other: '·' } as const;

/** Memory over a step as lines of text: the peak within each column's time, and below it which phase ran. */
export function memoryChart({ samples, peakBytes }: MemoryProfile): string[] {
  const endMs = samples.at(-1)?.ms ?? 0;
  if (samples.length === 0 || endMs <= 0) return [];
  const heights = new Float64Array(WIDTH);
  const phases: string[] = Array.from({ length: WIDTH }, () => '');
  const columnOf = (ms: number) => Math.min(WIDTH - 1, Math.max(0, Math.floor((ms / endMs) * WIDTH)));
  let previousMs = 0;
  for (const sample of samples) {
    const last = columnOf(sample.ms);
    for (let column = columnOf(previousMs); column <= last; column++) {
      heights[column] = Math.max(heights[column]!, sample.peakBytes);
      phases[column] = PHASE_MARKS[sample.phase];
    }
    previousMs = sample.ms;
  }
  const labels = [formatBytes(peakBytes), '0 B'];
  const margin = Math.max(...labels.map((label) => label.length));
  const lines = Array.from({ length: HEIGHT }, (_, fromTop) => {
    const label = fromTop === 0 ? labels[0]! : fromTop === HEIGHT - 1 ? labels[1]! : '';
    const floor = (HEIGHT - 1 - fromTop) * 8;
    const cells = [...heights].map(
      (bytes) => EIGHTHS[Math.min(8, Math.max(0, Math.round((bytes / peakBytes) * HEIGHT * 8) - floor))],
    );
    return `${label.padStart(margin)} │${cells.join('')}`.trimEnd();
  });
  return [...lines, `${' '.repeat(margin)}  ${phases.join('')}`];
}
