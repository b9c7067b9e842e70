import { input, type Kernel, type KernelTable } from './kernel.ts';

const complex: Kernel = (scope, inputs) => {
  const real = input(inputs, 'real');
  const imag = input(inputs, 'imag');
  const parts = [real, imag].map((part) => scope.cast(scope.in(part), 'float32'));
  return scope.out(scope.call('complex', ...parts), 'complex64', real.shape);
};

/** One of the two floats of each element. */
function part(index: 0 | 1): Kernel {
  return (scope, inputs) => {
    const x = input(inputs, 'input');
    const values = scope.cast(scope.in(x), 'complex64');
    const pairs = scope.call('view_as_real', values);
    return scope.out(scope.call('contiguous', scope.call('select.int', pairs, -1, index)), 'float32', x.shape);
  };
}

const complexAbs: Kernel = (scope, inputs) => {
  const x = input(inputs, 'x');
  return scope.out(scope.call('abs', scope.in(x)), 'float32', x.shape);
};

/** Over the last axis; the inverse divides by its length. */
function fourier(aten: 'fft_fft' | 'fft_ifft'): Kernel {
  return (scope, inputs) => {
    const x = input(inputs, 'input');
    return scope.out(scope.call(aten, scope.cast(scope.in(x), 'complex64'), null, -1, null), 'complex64', x.shape);
  };
}

/** Complex numbers: two floats an element, interleaved. */
export const complexKernels: KernelTable = {
  Complex: complex,
  Real: part(0),
  Imag: part(1),
  ComplexAbs: complexAbs,
  FFT: fourier('fft_fft'),
  IFFT: fourier('fft_ifft'),
};
