import { DOCKER_26_SKIP } from '../../../../lab/test-environment.ts';
import { describeUnlockJourneys } from '../../../support/unlock-journeys.ts';

describeUnlockJourneys('an unlock into Docker 26.1 with the containerd image store', {
  name: 'dockerd-journeys-26-containerd',
  options: { version: '26.1', imageStore: 'containerd' },
  skip: DOCKER_26_SKIP,
  furtherLayouts: [['the OCI layout with layers of zstd', { layout: 'oci', compression: 'zstd' }]],
  needsEveryLayer: true,
  isBrief: false,
});
