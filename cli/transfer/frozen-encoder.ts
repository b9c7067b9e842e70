import type { Backbone } from '../../transfer/backbone.ts';
import { networkEncoder, type PictureEncoder } from '../../transfer/features/extract-features.ts';
import { TransferNetwork } from '../../transfer/network.ts';
import type { TransferSession } from './session.ts';

/** The backbone as it is, as an encoder of pictures; the session closes it. */
export function frozenEncoder(session: TransferSession, backbone: Backbone): PictureEncoder {
  const network = session.own(new TransferNetwork(backbone, { seed: 0, precision: 'fp32' }), (one) => one.dispose());
  return networkEncoder(session.engine, network);
}
