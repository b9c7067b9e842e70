/** A place in the module tree, e.g. image tower / block 3 / attention. Interned: one object per path, compared by identity. */
export class ModulePath {
  readonly name: string;
  readonly parent: ModulePath | undefined;
  readonly #children = new Map<string, ModulePath>();

  constructor(name: string, parent?: ModulePath) {
    this.name = name;
    this.parent = parent;
  }

  child(name: string): ModulePath {
    let child = this.#children.get(name);
    if (child === undefined) {
      child = new ModulePath(name, this);
      this.#children.set(name, child);
    }
    return child;
  }

  /** From the outermost module to this one; empty for the root. */
  chain(): ModulePath[] {
    return this.parent === undefined ? [] : [...this.parent.chain(), this];
  }

  toString(): string {
    return this.chain()
      .map(({ name }) => name)
      .join('/');
  }
}

/** Outside every module. */
export const ROOT_MODULE = new ModulePath('');
