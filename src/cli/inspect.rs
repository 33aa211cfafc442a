//! `harness inspect`.

use super::Exit;
use super::session::{GridArgs, Session};
use crate::error::{Error, Result};
use crate::store::Planned;
use candle_core::Device;
use comfy_table::{Table, presets};
use ptq::graph::fold_bn::fold_bn;
use ptq::quant::placement::place;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    grid: GridArgs,
    /// Beginning of the cell's id; by default the grid's first cell (see `harness plan`).
    cell: Option<String>,
}

/// Prints every tensor of the cell's network that is quantized, where, and to how many bits.
pub fn inspect(args: &Args) -> Result<Exit> {
    let mut session = Session::open(&args.grid, &Device::Cpu)?;
    let wanted = args.cell.as_deref().unwrap_or_default();
    let Some(Planned { id, cell, .. }) = session.plan.iter().find(|planned| planned.id.to_string().starts_with(wanted))
    else {
        return Err(Error::NothingMatched(format!("no cell begins with {wanted:?}; `harness plan GRID` lists ids")));
    };
    let inputs = session.loader.inputs(cell)?;
    let network = fold_bn(&inputs.network, cell.recipe.batch_norm)?;
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["unit", "tensor", "kind", "bits", "granularity"]);
    for (unit, placed) in network.units.iter().zip(place(&network, cell.bits, cell.setting, &cell.recipe)) {
        for (index, node) in unit.nodes.iter().enumerate() {
            for site in placed.on_input[index].iter().flatten() {
                let site = &placed.sites[*site];
                let tensor = format!("{} -> {}", site.tensor, node.name);
                table.add_row([&unit.name, &tensor, "input", &site.bits.to_string(), "per tensor"]);
            }
            if let Some(weight) = node.op.weight() {
                let bits = placed.weight_bits[index].map_or("full precision".to_string(), |bits| bits.to_string());
                let granularity = format!("per channel ({})", weight.dim(0)?);
                table.add_row([&unit.name, &format!("{}.weight", node.name), "weight", &bits, &granularity]);
            }
            if let Some(site) = placed.on_output[index] {
                let site = &placed.sites[site];
                table.add_row([&unit.name, &site.tensor, "output", &site.bits.to_string(), "per tensor"]);
            }
        }
    }
    say!("{id}: {} with {}, {} setting", cell.arch, cell.method, cell.setting);
    say!("{table}");
    say!("All other tensors, biases among them, stay in full precision; the image is not quantized.");
    Ok(Exit::Done)
}
