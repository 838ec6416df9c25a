// A program that uses the generated types as a client would. The TypeScript compiler checks it; it never runs.
import type { components, paths } from "./generated.js";

type Input<Path extends keyof paths> = paths[Path] extends {
  post: { requestBody?: { content: { "application/json": infer Body } } };
}
  ? Body
  : never;
type Visit = components["schemas"]["Visit"];

export const visit: Input<"/typed:tagged"> = {
  pet: { type: "dog", name: "Rex", friends: [{ type: "cat", lives: 7 }] },
  default: { type: "cat", lives: 9 },
  examples: {},
};
export const shared: Input<"/typed:shared"> = { how: "slowly" };
export const other: Input<"/typed:other"> = { number: 3 };

export function nameOf(made: Visit): string {
  // The union is narrowed by its tag.
  return made.pet.type === "dog" ? made.pet.name : `a cat with ${made.pet.lives} lives`;
}

// @ts-expect-error: the tag says dog, and a dog has a name
export const wrong: Visit["pet"] = { type: "dog", lives: 3 };
