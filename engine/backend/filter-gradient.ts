import {
  backend_util,
  type Conv2DBackpropFilterAttrs,
  getKernel,
  type KernelBackend,
  type KernelFunc,
  registerKernel,
  type TensorInfo,
  util,
} from '../tf.ts';

type Shape4D = [number, number, number, number];

/**
 * Registers Conv2DBackpropFilter for a backend that lacks it, out of its other kernels: the pixels x [B·H'·W', C] that a place (i, j) of
 * the filter met give that place's gradient xᵀ·dy [C, O]. tfjs's JavaScript kernel goes over the pictures anew for each pair of channels,
 * which was nine tenths of a ResNet-18's step on wasm.
 */
export function registerFilterGradient(backendName: string): void {
  const kernelFunc: KernelFunc = ({ inputs, attrs, backend }) => {
    const { x, dy } = inputs as unknown as { x: TensorInfo; dy: TensorInfo };
    const { strides, pad, dataFormat, dimRoundingMode, filterShape } = attrs as unknown as Conv2DBackpropFilterAttrs;
    util.assert(
      dataFormat === 'NHWC',
      () => `Cannot convolve on ${backendName}: dataFormat is ${dataFormat}, not NHWC`,
    );
    const { batchSize, outHeight, outWidth, inChannels, outChannels, strideHeight, strideWidth, padInfo } =
      backend_util.computeConv2DInfo(x.shape as Shape4D, filterShape, strides, 1, pad, dimRoundingMode);
    const { top, bottom, left, right } = padInfo;
    const rows = batchSize * outHeight * outWidth;

    const made: TensorInfo[] = [];
    const run = (kernel: string, inputs: object, attrs: object): TensorInfo => {
      const result = getKernel(kernel, backendName).kernelFunc({ inputs, attrs, backend } as never) as TensorInfo;
      made.push(result);
      return result;
    };
    const reshape = (tensor: TensorInfo, shape: number[]) => run('Reshape', { x: tensor }, { shape });
    try {
      const padding = { paddings: [NONE, [top, bottom], [left, right], NONE], constantValue: 0 };
      const padded = top + bottom + left + right > 0 ? run('PadV2', { x }, padding) : x;
      const upstream = reshape(dy, [1, rows, outChannels]);
      const placeGradient = (i: number, j: number): TensorInfo => {
        const [bottomEnd, rightEnd] = [i + (outHeight - 1) * strideHeight + 1, j + (outWidth - 1) * strideWidth + 1];
        const region = { begin: [0, i, j, 0], end: [batchSize, bottomEnd, rightEnd, inChannels] };
        const met = run(
          'StridedSlice',
          { x: padded },
          { ...region, strides: [1, strideHeight, strideWidth, 1], ...NO_MASKS },
        );
        const operands = { a: reshape(met, [1, rows, inChannels]), b: upstream };
        return run('BatchMatMul', operands, { transposeA: true, transposeB: false });
      };
      const [height, width] = filterShape;
      const places = Array.from({ length: height * width }, (_, at) =>
        placeGradient(Math.floor(at / width), at % width),
      );
      const gradient = reshape(places.length > 1 ? run('Concat', places, { axis: 0 }) : places[0]!, filterShape);
      made.pop();
      return gradient;
    } finally {
      for (const { dataId } of made) (backend as KernelBackend).disposeData(dataId);
    }
  };
  registerKernel({ kernelName: 'Conv2DBackpropFilter', backendName, kernelFunc });
}

const NONE = [0, 0];
const NO_MASKS = { beginMask: 0, endMask: 0, ellipsisMask: 0, newAxisMask: 0, shrinkAxisMask: 0 };
