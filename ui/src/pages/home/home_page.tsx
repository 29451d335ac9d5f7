import type { PageProps } from "../routes";

export function HomePage(_: PageProps) {
    return <h1>Home</h1>;
}
