import { DOCKER_26_SKIP } from '../../../../lab/test-environment.ts';
import { describeUnlockJourneys, HAS_ALL_JOURNEYS } from '../../../support/unlock-journeys.ts';

describeUnlockJourneys('an unlock into Docker 26.1 with the classic image store', {
  name: 'dockerd-journeys-26-classic',
  options: { version: '26.1', imageStore: 'classic' },
  skip: DOCKER_26_SKIP,
  furtherLayouts: [['the OCI layout with layers of zstd', { layout: 'oci', compression: 'zstd' }]],
  needsEveryLayer: false,
  isBrief: !HAS_ALL_JOURNEYS,
});
