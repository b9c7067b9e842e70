/**
 * fp32 addition in WebAssembly SIMD, for threads without the engine. The module is small enough to be written here by hand:
 *
 *   (func $add (param $target i32) (param $source i32) (param $bytes i32) (local $end i32)
 *     (local.set $end (i32.add (local.get $target) (local.get $bytes)))
 *     (block (loop
 *       (br_if 1 (i32.ge_u (local.get $target) (local.get $end)))
 *       (v128.store (local.get $target) (f32x4.add (v128.load (local.get $target)) (v128.load (local.get $source))))
 *       (local.set $target (i32.add (local.get $target) (i32.const 16)))
 *       (local.set $source (i32.add (local.get $source) (i32.const 16)))
 *       (br 0))))
 *
 * IEEE addition of two floats has one result, so lanes of four give the bits of a scalar loop.
 */

// biome-ignore format: one instruction group per line
const MODULE_BYTES = Uint8Array.of(
  0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00, // \0asm, version 1
  0x01, 0x07, 0x01, 0x60, 0x03, 0x7f, 0x7f, 0x7f, 0x00, // type 0: (i32, i32, i32) -> ()
  0x02, 0x08, 0x01, 0x01, 0x65, 0x01, 0x6d, 0x02, 0x00, 0x01, // import memory "e" "m", at least 1 page
  0x03, 0x02, 0x01, 0x00, // function 0 has type 0
  0x07, 0x07, 0x01, 0x03, 0x61, 0x64, 0x64, 0x00, 0x00, // export "add"
  0x0a, 0x3f, 0x01, 0x3d, 0x01, 0x01, 0x7f, // code: one body of 61 bytes, one i32 local
  0x20, 0x00, 0x20, 0x02, 0x6a, 0x21, 0x03, // end = target + bytes
  0x02, 0x40, 0x03, 0x40, // block, loop
  0x20, 0x00, 0x20, 0x03, 0x4f, 0x0d, 0x01, // br_if 1 (target >= end)
  0x20, 0x00, // address of the store
  0x20, 0x00, 0xfd, 0x00, 0x04, 0x00, // v128.load target
  0x20, 0x01, 0xfd, 0x00, 0x04, 0x00, // v128.load source
  0xfd, 0xe4, 0x01, // f32x4.add
  0xfd, 0x0b, 0x04, 0x00, // v128.store
  0x20, 0x00, 0x41, 0x10, 0x6a, 0x21, 0x00, // target += 16
  0x20, 0x01, 0x41, 0x10, 0x6a, 0x21, 0x01, // source += 16
  0x0c, 0x00, 0x0b, 0x0b, 0x0b, // br loop, end loop, end block, end function
);

// TypeScript has these types in lib.dom only.
declare const WebAssembly: {
  Memory: new (options: { initial: number }) => { readonly buffer: ArrayBuffer };
  Module: new (bytes: Uint8Array) => object;
  Instance: new (module: object, imports: object) => { readonly exports: Readonly<Record<string, unknown>> };
};

const PAGE_BYTES = 65_536;

/** Slots of fp32 memory that can be added to one another. */
export interface AddingSlots {
  /** Slot `index` as floats; a view into the module's memory. */
  slot(index: number): Float32Array;
  /** slot[target] += slot[source] over the first `floats` (rounded up to 4: the rest of a slot is scratch). */
  add(target: number, source: number, floats: number): void;
}

/** Creates `slotCount` slots of `slotFloats` (a multiple of 4) each. Compiles synchronously: about 0.1 ms. */
export function createAddingSlots(slotCount: number, slotFloats: number): AddingSlots {
  const slotBytes = slotFloats * 4;
  const memory = new WebAssembly.Memory({ initial: Math.ceil((slotCount * slotBytes) / PAGE_BYTES) });
  const instance = new WebAssembly.Instance(new WebAssembly.Module(MODULE_BYTES), { e: { m: memory } });
  const add = instance.exports['add'] as (target: number, source: number, bytes: number) => void;
  const slots = Array.from(
    { length: slotCount },
    (_, index) => new Float32Array(memory.buffer, index * slotBytes, slotFloats),
  );
  return {
    slot: (index) => slots[index]!,
    add: (target, source, floats) => add(target * slotBytes, source * slotBytes, ((floats + 3) >> 2) << 4),
  };
}
