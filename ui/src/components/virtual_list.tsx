/** A list of any length: only the rows in sight are in the page. All rows have the same height. */
import { useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";

export interface VirtualListProps {
    label: string;
    length: number;
    /** Height of a row in pixels. */
    rowHeight: number;
    /** A row; it gets `style` for its place and must pass it on with `role="listitem"`. */
    row: (index: number) => ComponentChildren;
    /** Called with the rows in sight, so that they can be loaded. */
    onVisible?: (first: number, last: number) => void;
    /** Height of the list in CSS. */
    height?: string;
}

/** Rows beyond the edge that are kept ready. */
const SPARE = 8;

export function VirtualList({ label, length, rowHeight, row, onVisible, height = "60vh" }: VirtualListProps) {
    const box = useRef<HTMLDivElement>(null);
    const top = useSignal(0);
    const visible = useSignal(600);
    useLayoutEffect(() => {
        const element = box.current;
        if (!element) return undefined;
        const observer = new ResizeObserver(() => {
            visible.value = element.clientHeight;
        });
        observer.observe(element);
        visible.value = element.clientHeight;
        return () => observer.disconnect();
    }, []);
    const first = Math.max(0, Math.floor(top.value / rowHeight) - SPARE);
    const last = Math.min(length - 1, Math.ceil((top.value + visible.value) / rowHeight) + SPARE);
    useEffect(() => {
        if (length > 0) onVisible?.(first, last);
    }, [first, last, length]);
    const rows = [];
    for (let index = first; index <= last; index++) {
        rows.push(
            <div
                key={index}
                class="virtual-row"
                role="listitem"
                aria-posinset={index + 1}
                aria-setsize={length}
                style={{ top: `${index * rowHeight}px`, height: `${rowHeight}px` }}
            >
                {row(index)}
            </div>,
        );
    }
    return (
        <div
            ref={box}
            class="virtual-list"
            tabIndex={0}
            role="group"
            aria-label={label}
            style={{ maxHeight: height, height: `${length * rowHeight}px` }}
            onScroll={(event) => {
                top.value = event.currentTarget.scrollTop;
            }}
        >
            <div role="list" aria-label={label} style={{ height: `${length * rowHeight}px` }} class="virtual-rows">
                {rows}
            </div>
        </div>
    );
}
