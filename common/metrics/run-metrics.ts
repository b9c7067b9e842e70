import { Gauge, type Registry } from 'prom-client';

/** Who this process is. A worker works on one run and says which; a coordinator's own metrics carry the run. */
export interface Identity {
  readonly version: string;
  readonly commit: string;
  readonly run?: string;
  readonly configSha256?: string;
}

/** Registers `covey_build_info`, and `covey_run_info` where there is a run; both are always 1. */
export function registerIdentity(registry: Registry, identity: Identity): void {
  const registers = [registry];
  new Gauge({
    name: 'covey_build_info',
    help: 'Always 1; version and commit of this process',
    labelNames: ['version', 'commit'],
    registers,
  }).set({ version: identity.version, commit: identity.commit }, 1);
  if (identity.run === undefined) return;
  new Gauge({
    name: 'covey_run_info',
    help: 'Always 1; the run this process works on and the start of its configuration hash',
    labelNames: ['run', 'config_sha'],
    registers,
  }).set({ run: identity.run, config_sha: (identity.configSha256 ?? '').slice(0, 12) }, 1);
}
