/** A new run: what to run, what to capture, what that would store. */
import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import type { CreateRun } from "residuum";
import { CopyAs } from "../../components/copy_as";
import { Choice, Select } from "../../components/fields";
import { PageHeader } from "../../components/page_header";
import { Empty, Loaded, ProblemNote } from "../../components/problem";
import { go, href, place, setQuery } from "../../router/location";
import { Link } from "../../router/link";
import { readyModels, type ReadyModel, useModels } from "../../server/catalogue";
import { client } from "../../server/client";
import { useAction } from "../../server/resource";
import { CaptureFields } from "./capture_fields";
import { Cost } from "./cost";
import { type Faults, formOf, queryOf, requestOf, type RunForm } from "./form";
import { GenerationFields, StorageFields } from "./other_fields";
import { commandRun, pythonRun } from "./snippets";
import { InputFields } from "./input_fields";
import "./home.css";

export function HomePage() {
    const models = useModels();
    return (
        <>
            <PageHeader title="New run">
                Post a text, capture the activations you choose, and ask many questions of them afterwards.
            </PageHeader>
            <Loaded of={models} what="models">
                {(all) => {
                    const ready = readyModels(all);
                    if (ready.length > 0) return <NewRun models={ready} />;
                    return (
                        <Empty title={all.length > 0 ? "No model is ready yet" : "This server has no model"}>
                            <Link to={href("/server")}>The server page</Link> shows what is being loaded, and loads others.
                        </Empty>
                    );
                }}
            </Loaded>
        </>
    );
}

function NewRun({ models }: { models: ReadyModel[] }) {
    // The address has the form, but for long texts; so the form is kept here too.
    const form = useSignal<RunForm>(formOf(place.value.query));
    const written = useRef(place.value.query.toString());
    useEffect(() => {
        // Back and forward bring another form.
        const now = place.value.query.toString();
        if (now !== written.current) {
            written.current = now;
            form.value = formOf(place.value.query);
        }
    }, [place.value.query]);
    const set = (change: Partial<RunForm>) => {
        form.value = { ...form.value, ...change };
        setQuery(queryOf(form.value), { replace: true });
        written.current = place.peek().query.toString();
    };

    const model = models.find(({ id }) => id === form.value.model) ?? (models[0] as ReadyModel);
    const shown: RunForm = { ...form.value, model: model.id };
    if (shown.mode === "chat" && !model.has_chat_template) shown.mode = "text";
    const { body, faults } = requestOf(shown, model.n_layers);
    const isReady = Object.keys(faults).length === 0;

    const post = useAction(async (signal, request: CreateRun) => {
        const run = await client.runs.create(request, { signal });
        go(href(`/runs/${run.id}`));
    });
    const submit = () => {
        if (isReady && !post.isRunning) void post.run(body);
    };
    return (
        <form
            class="new-run"
            onSubmit={(event) => {
                event.preventDefault();
                submit();
            }}
            onKeyDown={(event) => {
                if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
                    event.preventDefault();
                    submit();
                }
            }}
        >
            <div class="new-run-fields">
                <section class="card" aria-label="Input">
                    <div class="row new-run-model">
                        <Select
                            label="Model"
                            value={model.id}
                            options={models.map(({ id }) => ({ value: id, label: id }))}
                            onChange={(id) => set({ model: id, hooks: [] })}
                        />
                        {model.has_chat_template && (
                            <Choice
                                label="Kind of input"
                                value={shown.mode}
                                options={[
                                    { value: "text", label: "Text" },
                                    { value: "chat", label: "Chat" },
                                ]}
                                onChange={(mode) => set({ mode })}
                            />
                        )}
                        <span class="soft new-run-about">
                            {model.architecture}, {model.n_layers} layers, d_model {model.d_model}, context {model.n_ctx}
                        </span>
                    </div>
                    <InputFields form={shown} set={set} />
                    <Fault faults={faults} of={shown.mode === "chat" ? "messages" : "text"} isQuiet />
                </section>
                <CaptureFields model={model} form={shown} set={set} faults={faults} />
                <div class="columns">
                    <GenerationFields model={model} form={shown} set={set} faults={faults} />
                    <StorageFields form={shown} set={set} faults={faults} />
                </div>
            </div>
            <aside class="new-run-side">
                <Cost body={isReady ? body : null} />
                <button type="submit" class="primary new-run-go" disabled={!isReady || post.isRunning} title="Ctrl-Enter">
                    Run
                </button>
                {post.error !== undefined && <ProblemNote error={post.error} />}
                {isReady && (
                    <CopyAs
                        request={{ method: "POST", path: "/v1/runs", body }}
                        python={pythonRun(body, location.origin)}
                        cli={commandRun(body)}
                    />
                )}
            </aside>
        </form>
    );
}

/** What is wrong with a field. `isQuiet`: what is merely missing is not shown as an error. */
export function Fault({ faults, of, isQuiet = false }: { faults: Faults; of: keyof RunForm; isQuiet?: boolean }) {
    const fault = faults[of];
    return fault ? <p class={isQuiet ? "soft fault" : "fault fault-bad"}>{fault}</p> : null;
}
