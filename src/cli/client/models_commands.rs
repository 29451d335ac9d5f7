//! `residuum models`: the models of a running server.

use std::io::BufReader;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    answers::{Model, Page},
    call::{Call, segment},
    event_stream::Events,
    failure::{Failure, Outcome},
    hook_summary::{groups, layer_ranges, shape},
    output::{Output, Style},
    progress::{Counts, progress, set_total},
    references::model_id,
    runs_commands::show_facts,
    server::{Answer, Client, Connection, read},
    table::{Cell, Column, Table},
    units::{bytes, count},
    visible::visible,
};

/// Seconds that an unload may take before the command stops to wait.
const UNLOAD: u32 = 600;

/// List, show, load and unload the models of a running server. Without a subcommand: list them.
#[derive(Debug, Args)]
pub(in crate::cli) struct Models {
    #[command(subcommand)]
    action: Option<ModelsAction>,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Subcommand)]
enum ModelsAction {
    /// List the models, with their states and warnings.
    Ls,
    /// Show a model: its sizes and hook points.
    Show {
        /// The model; may be left out if the server has only one.
        model: Option<String>,
    },
    /// Load a model, and wait until it is ready.
    Load {
        /// The name to use in requests.
        id: String,
        /// A folder or .gguf file in the server's --models-dir, or a hub name org/name with --allow-hub.
        source: String,
        /// Load it even if there does not seem to be enough memory.
        #[arg(long)]
        force: bool,
        /// Do not wait until it is ready.
        #[arg(long)]
        no_wait: bool,
    },
    /// Unload a model once its accepted runs are computed. What is stored stays.
    Unload {
        /// The model.
        id: String,
        /// Cancel its runs instead of computing them first.
        #[arg(long)]
        cancel_runs: bool,
        /// Do not wait until it is gone.
        #[arg(long)]
        no_wait: bool,
    },
}

impl Models {
    pub(super) fn run(&self) -> Outcome {
        let client = self.connection.open()?;
        match &self.action {
            None | Some(ModelsAction::Ls) => list(&client),
            Some(ModelsAction::Show { model }) => {
                let id = model_id(&client, model.as_deref())?;
                show(&client.out, &client.json(&Call::get(path(&id)))?)
            }
            Some(ModelsAction::Load { id, source, force, no_wait }) => load(&client, id, source, *force, !no_wait),
            Some(ModelsAction::Unload { id, cancel_runs, no_wait }) => unload(&client, id, *cancel_runs, !no_wait),
        }
    }
}

fn path(id: &str) -> String {
    format!("/v1/models/{}", segment(id))
}

fn list(client: &Client) -> Outcome {
    let Page { items, .. } = client.json(&Call::get("/v1/models"))?.read()?;
    let out = &client.out;
    if out.json {
        return items.iter().try_for_each(|model| out.json_line(model));
    }
    let models: Vec<Model> = items.iter().map(read).collect::<Outcome<_>>()?;
    if out.quiet {
        return models.iter().try_for_each(|model| out.line(&visible(&model.id)));
    }
    if models.is_empty() {
        return out.line("the server has no model");
    }
    out.print(&listed(&models).render(out))?;
    models.iter().try_for_each(|model| remarks(model, out))
}

fn listed(models: &[Model]) -> Table {
    let mut table = Table::new(vec![
        Column::word("model"),
        Column::word("status"),
        Column::text("architecture"),
        Column::number("parameters"),
        Column::number("layers"),
        Column::number("width").optional(),
        Column::number("context").optional(),
        Column::text("weights").optional(),
        Column::word("device").optional(),
        Column::number("memory").optional(),
        Column::text("source").optional(),
    ]);
    let text = |value: &Option<String>| Cell::from(value.as_deref().map(visible).unwrap_or_default());
    let plain = |value: Option<u64>| Cell::from(value.map(|n| n.to_string()).unwrap_or_default());
    for model in models {
        table.push(vec![
            visible(&model.id).into(),
            Cell::styled(status(model), Style::of_status(&model.status)),
            text(&model.architecture),
            model.n_params.map(count).unwrap_or_default().into(),
            plain(model.n_layers),
            plain(model.d_model),
            plain(model.n_ctx),
            text(&model.weights_dtype),
            text(&model.device),
            model.memory_bytes.map(bytes).unwrap_or_default().into(),
            text(&model.source),
        ]);
    }
    table
}

/// The status, and how far a load has come.
fn status(model: &Model) -> String {
    let status = visible(&model.status);
    match &model.progress {
        Some(p) if p.bytes_total > 0 => {
            let percent = u128::from(p.bytes_done.min(p.bytes_total)) * 100 / u128::from(p.bytes_total);
            format!("{status}, {} {percent} %", visible(&p.stage))
        }
        Some(p) => format!("{status}, {}", visible(&p.stage)),
        None => status,
    }
}

/// Why a model could not be loaded, and what is unusual about it.
fn remarks(model: &Model, out: &Output) -> Outcome {
    if let Some(problem) = &model.error {
        out.line(&out.paint(Style::Bad, &format!("{}: {problem}", visible(&model.id))))?;
    }
    model.warnings.iter().try_for_each(|warning| {
        let text = format!("{}: warning {}: {}", visible(&model.id), visible(&warning.code), visible(&warning.detail));
        out.line(&out.paint(Style::Busy, &text))
    })
}

fn show(out: &Output, answer: &Answer) -> Outcome {
    if out.json {
        return out.raw(&answer.text);
    }
    let model: Model = answer.read()?;
    if out.quiet {
        return out.line(&visible(&model.id));
    }
    let mut facts = vec![("model", model.id.clone()), ("status", status(&model))];
    facts.extend(model.source.clone().map(|source| ("source", source)));
    facts.extend(model.architecture.clone().map(|architecture| ("family", architecture)));
    facts.extend(model.n_params.map(|n| ("size", format!("{} parameters", count(n)))));
    if let (Some(layers), Some(width)) = (model.n_layers, model.d_model) {
        let heads = match (model.n_heads, model.n_kv_heads) {
            (Some(heads), Some(kv)) if kv != heads => format!(", {heads} heads over {kv}"),
            (Some(heads), _) => format!(", {heads} heads"),
            _ => String::new(),
        };
        facts.push(("layers", format!("{layers}, width {width}{heads}")));
    }
    facts.extend(model.n_ctx.map(|n| ("context", format!("{n} tokens"))));
    facts.extend(model.d_vocab.map(|n| ("vocabulary", format!("{n} tokens"))));
    facts.extend(model.weights_dtype.clone().map(|dtype| ("weights", dtype)));
    facts.extend(model.device.clone().map(|device| ("device", device)));
    facts.extend(model.memory_bytes.map(|n| ("memory", bytes(n))));
    facts.extend(model.has_chat_template.map(|has| ("chats", if has { "yes" } else { "no template" }.to_owned())));
    show_facts(out, &facts)?;
    remarks(&model, out)?;
    let mut table = Table::new(vec![
        Column::word("hook"),
        Column::text("layers"),
        Column::word("shape"),
        Column::text("axes").optional(),
    ]);
    let describe = |shape_of: &[Option<usize>], axes: &[String]| {
        format!("{}\t{}", shape(shape_of.iter().copied()), visible(&axes.join(", ")))
    };
    for group in groups(model.hooks.iter().map(|h| (h.hook.as_str(), describe(&h.shape, &h.axes)))) {
        let (shape, axes) = group.shape.split_once('\t').unwrap_or((&group.shape, ""));
        table.push(vec![group.name.clone().into(), layer_ranges(&group.layers).into(), shape.into(), axes.into()]);
    }
    if table.is_empty() {
        return Ok(());
    }
    out.line("")?;
    out.print(&table.render(out))
}

fn load(client: &Client, id: &str, source: &str, force: bool, wait: bool) -> Outcome {
    let body = json!({"id": id, "source": source, "force": force});
    let answer = client.json(&Call::post("/v1/models", &body))?;
    if wait {
        follow(client, id)?;
    }
    let answer = if wait { client.json(&Call::get(path(id)))? } else { answer };
    let out = &client.out;
    let model: Model = answer.read()?;
    if out.json {
        out.raw(&answer.text)?;
    } else if out.quiet {
        out.line(&visible(&model.id))?;
    } else {
        out.print(&listed(std::slice::from_ref(&model)).render(out))?;
        model
            .warnings
            .iter()
            .try_for_each(|w| out.line(&format!("warning {}: {}", visible(&w.code), visible(&w.detail))))?;
    }
    match model.error {
        Some(problem) => Err(Failure::Other(format!("{} could not be loaded: {problem}", visible(&model.id)))),
        None => Ok(()),
    }
}

/// Follows a load until it ends.
fn follow(client: &Client, id: &str) -> Outcome {
    let bar = progress(&client.out, None, Counts::Bytes);
    let response = client.send(&Call::get(format!("{}/events", path(id))).header("accept", "text/event-stream"))?;
    for event in Events::new(BufReader::new(response.into_body().into_reader())) {
        let event = event.map_err(|e| client.unread(&e))?;
        let model: Value = serde_json::from_str(&event.data).map_err(|e| Failure::unexpected(&e))?;
        let Some(progress) = read::<Model>(&model)?.progress else { continue };
        bar.set_message(visible(&progress.stage));
        if progress.bytes_total > 0 {
            set_total(&bar, progress.bytes_total, Counts::Bytes);
        }
        bar.set_position(progress.bytes_done);
    }
    bar.finish_and_clear();
    Ok(())
}

fn unload(client: &Client, id: &str, cancel_runs: bool, wait: bool) -> Outcome {
    let call = Call::delete(path(id));
    let call = if wait { call.wait(UNLOAD) } else { call };
    let call = if cancel_runs { call.query("cancel_runs", true) } else { call };
    let bar = progress(&client.out, None, Counts::Things);
    bar.set_message("unloading");
    let response = client.send(&call)?;
    bar.finish_and_clear();
    let gone = response.status().as_u16() == 204;
    let out = &client.out;
    match (out.json, out.quiet, gone) {
        (true, ..) => out.json_line(&json!({"id": id, "unloaded": gone})),
        (_, true, _) => out.line(&visible(id)),
        (.., true) => out.line(&format!("unloaded {}", visible(id))),
        (.., false) => out.line(&format!("{} goes when its accepted runs have ended", visible(id))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(value: Value) -> Model {
        read(&value).unwrap()
    }

    #[test]
    fn a_model_is_a_row() {
        let loading = json!({"id": "a", "status": "loading", "source": "x/y", "progress": {"stage": "weights", "bytes_done": 5, "bytes_total": 20}});
        let ready = json!({
            "id": "smollm2-135m", "status": "ready", "architecture": "llama", "n_params": 134_515_008, "n_layers": 30, "d_model": 576,
            "n_ctx": 8192, "weights_dtype": "Q4_1", "device": "cpu", "warnings": [{"code": "unused_tensors", "detail": "2 tensors"}]
        });
        let text = listed(&[model(loading), model(ready)]).render(&Output::plain(None));
        assert_eq!(
            text,
            "model         status                 architecture  parameters  layers  width  context  weights  device  source\n\
             a             loading, weights 25 %                                                                     x/y\n\
             smollm2-135m  ready                  llama              135 M      30    576     8192  Q4_1     cpu\n"
        );
    }

    #[test]
    fn a_queued_load_has_no_share() {
        let queued = model(json!({"id": "a", "status": "loading", "progress": {"stage": "queued"}}));
        assert_eq!(status(&queued), "loading, queued");
    }
}
