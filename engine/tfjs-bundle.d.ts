export { MathBackendCPU } from '@tensorflow/tfjs-backend-cpu/dist/base';
export * from '@tensorflow/tfjs-core';
