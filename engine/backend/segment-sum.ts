import { getKernel, type MathBackendCPU, registerKernel, type TensorInfo, unregisterKernel } from '../tf.ts';

let replaced = false;

/**
 * Puts a scatter in the place of tfjs's JavaScript UnsortedSegmentSum, which compares every id with every segment: with a vocabulary of
 * 4,096 that was nine tenths of a training step, as the gradient of an embedding. Rows are added in the order of the ids.
 */
export function replaceSegmentSum(): void {
  if (replaced) return;
  replaced = true;
  const { kernelFunc: original } = getKernel('UnsortedSegmentSum', 'cpu');
  unregisterKernel('UnsortedSegmentSum', 'cpu');
  registerKernel({
    kernelName: 'UnsortedSegmentSum',
    backendName: 'cpu',
    kernelFunc: (call) => {
      const { x, segmentIds } = call.inputs as unknown as { x: TensorInfo; segmentIds: TensorInfo };
      if (x.dtype !== 'float32' || segmentIds.shape.length !== 1) return original(call);
      const cpu = call.backend as MathBackendCPU;
      const { numSegments } = call.attrs as unknown as { numSegments: number };
      const shape = [numSegments, ...x.shape.slice(1)];
      const width = shape.slice(1).reduce((product, side) => product * side, 1);
      const values = cpu.data.get(x.dataId).values as Float32Array;
      const ids = cpu.data.get(segmentIds.dataId).values as Int32Array;
      const sums = new Float32Array(numSegments * width);
      for (let row = 0; row < ids.length; row++) {
        const segment = ids[row]!;
        // Rows without a segment are left out, as TensorFlow does.
        if (segment < 0 || segment >= numSegments) continue;
        for (let i = 0; i < width; i++) sums[segment * width + i]! += values[row * width + i]!;
      }
      return { dataId: cpu.write(sums, shape, 'float32'), shape, dtype: 'float32' };
    },
  });
}
