/**
 * The one import of tfjs-core (with gradients and the JavaScript CPU kernels, bundled by scripts/build-tfjs.mjs). Nobody else
 * imports tfjs packages: a second copy would have its own kernel registry.
 */
export * from '#tfjs';
