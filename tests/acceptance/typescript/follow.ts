// Submits an experiment, waits for it and reads its gradients, by the client that was generated from the contract.
import createClient from "openapi-fetch";
import type { paths } from "./contract.js";

declare const process: { argv: string[] };

const client = createClient<paths>({ baseUrl: process.argv[2] });

const { data: made, error: refused } = await client.POST("/experiments", {
  body: { network: { depth: 3, activation: "tanh" }, training: { iterations: 40 } },
});
if (!made) throw new Error(`${refused.code}: ${refused.detail}`);

const path = { experiment_id: made.id };
let status = made.status;
while (status === "queued" || status === "running") {
  const { data } = await client.GET("/experiments/{experiment_id}", { params: { path, query: { wait: 30 } } });
  if (!data) throw new Error("it is gone");
  status = data.status;
}

const { data: series } = await client.GET("/experiments/{experiment_id}/gradients", {
  params: { path, query: { of: "outputs", statistics: "norm" } },
});
if (!series) throw new Error("no gradients");
const { error } = await client.GET("/experiments/{experiment_id}", { params: { path: { experiment_id: "exp_none" } } });

const layers = Object.fromEntries(series.layers.map((layer) => [layer.name, layer.statistics.norm]));
console.log(JSON.stringify({ id: made.id, status, layers, refused: error?.code }));
