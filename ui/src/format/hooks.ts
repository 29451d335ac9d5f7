/** The short name of a hook, as a run takes it: `attn.pattern` of `blocks.3.attn.hook_pattern`. Names outside the blocks stay as they are. */
export function shortName(hook: string): string {
  const inBlock = /^blocks\.\d+\.(.*)$/.exec(hook)?.[1];
  return inBlock === undefined ? hook : withoutPrefix(inBlock);
}

/** `hook_resid_post` as `resid_post`, `attn.hook_z` as `attn.z`. */
export function withoutPrefix(name: string): string {
  return name.replace(/(^|\.)hook_/, "$1");
}
