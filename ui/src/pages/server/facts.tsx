/** Names with their values, in columns. */

/** A name, its value, and the value in full where it is shown shortened; false is left out. */
export type Fact = readonly [name: string, value: string, full?: string] | false;

export function Facts({ facts }: { facts: readonly Fact[] }) {
  const shown = facts.filter((fact) => fact !== false);
  if (shown.length === 0) return null;
  return (
    <dl class="server-facts">
      {shown.map(([name, value, full]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd title={full} dir="auto">
            {value}
          </dd>
        </div>
      ))}
    </dl>
  );
}
