import { DOCKER_SKIP } from '../../../../lab/test-environment.ts';
import { describeUnlockJourneys } from '../../../support/unlock-journeys.ts';

describeUnlockJourneys('an unlock into Docker 20.10', {
  name: 'dockerd-journeys-20',
  options: {},
  skip: DOCKER_SKIP,
  furtherLayouts: [],
  needsEveryLayer: false,
  isBrief: false,
});
