import type { PageProps } from "../routes";

export function FeaturesPage(_: PageProps) {
    return <h1>Features</h1>;
}
