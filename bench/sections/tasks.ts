import { measureTaskAnswers } from './task-answers.ts';
import { measureTaskCancellation } from './task-cancellation.ts';
import { measureTaskCost } from './task-cost.ts';
import { measureTaskEvents } from './task-events.ts';
import type { Section, SectionContext } from './section.ts';

export const tasks: Section = { title: 'background tasks: their answers, events, ends, and what they take', run };

async function run(context: SectionContext): Promise<void> {
  await measureTaskAnswers(context);
  await measureTaskEvents(context);
  await measureTaskCancellation(context);
  await measureTaskCost(context);
}
