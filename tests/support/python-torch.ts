import { spawnSync } from 'node:child_process';

/** A Python that has torch (Debian's python3-torch lives under /usr/bin/python3, which need not be first on PATH), or undefined. */
export const pythonWithTorch: string | undefined = ['/usr/bin/python3', 'python3'].find((python) => {
  const tried = spawnSync(python, ['-c', 'import torch'], { stdio: 'ignore', timeout: 60_000 });
  return tried.status === 0;
});
