import path from 'node:path';
import grpc from '@grpc/grpc-js';
import { loadSync, type Options, type PackageDefinition } from '@grpc/proto-loader';
import { packageRoot } from '../common/built-module.ts';
import type { ProtoGrpcType as ErrorDetailsPackage } from './gen/error_details.ts';
import type { ProtoGrpcType as RunPackage } from './gen/run_service.ts';
import type { ProtoGrpcType as StatusPackage } from './gen/status.ts';
import type { ProtoGrpcType as WorkerPackage } from './gen/worker_service.ts';

/** The options proto/gen was generated with (scripts/gen-proto.mjs); the types lie if these differ. */
const LOAD_OPTIONS: Options = { keepCase: false, longs: Number, enums: String, defaults: true, oneofs: true };

const PROTO_FILES = [
  'covey/v1/run_service.proto',
  'covey/v1/worker_service.proto',
  'google/rpc/status.proto',
  'google/rpc/error_details.proto',
];

export type CoveyPackage = RunPackage & WorkerPackage & StatusPackage & ErrorDetailsPackage;

let definition: PackageDefinition | undefined;
let loaded: CoveyPackage | undefined;

/** The parsed .proto files: for servers (reflection) and for `coveyPackage`. Read from disk once per process. */
export function packageDefinition(): PackageDefinition {
  definition ??= loadSync(PROTO_FILES, { ...LOAD_OPTIONS, includeDirs: [path.join(packageRoot(), 'proto')] });
  return definition;
}

/** Client constructors, service definitions and message codecs of `covey.v1` and `google.rpc`. */
export function coveyPackage(): CoveyPackage {
  loaded ??= grpc.loadPackageDefinition(packageDefinition()) as unknown as CoveyPackage;
  return loaded;
}
