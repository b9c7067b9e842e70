// Entry of the conformance bundle. The order matters: the environment is set before the specs, which read it as they are declared.
import './environment.ts';
import '@tensorflow/tfjs-core/dist/tests.js';
