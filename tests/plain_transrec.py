"""TransRec and its adapters once more, plainly: a released state in, what a reference case holds out.

Shares nothing with the package. Works on the names of the released state, so it also says which those are.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from parity import reference_value

SIZES = {
    "embedding_dim": 12,
    "max_seq_len": 5,
    "user_heads": 2,
    "user_layers": 2,
    "item_bottleneck": 8,
    "user_bottleneck": 4,
    "k_adapter_layers": [0, 2],
    "k_adapter_hidden": 12,
    "k_adapter_item_heads": 3,
    "k_adapter_user_heads": 2,
    "n_tokens": 3,
    "hypercomplex_division": 4,
    "mask_ratio": 0.0,
}
SMALL = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 20}
TEXT = {"vocab_size": 40, "max_position_embeddings": 16, "type_vocab_size": 2}
ROBERTA = TEXT | {"type_vocab_size": 1, "pad_token_id": 1, "layer_norm_eps": 1e-5}
IMAGE = {"image_size": 16, "patch_size": 8}
BACKBONES = {
    "bert": ("text", SMALL | TEXT),
    "roberta": ("text", SMALL | ROBERTA),
    "xlm-roberta": ("text", SMALL | ROBERTA),
    "vit": ("image", SMALL | IMAGE),
    "mae": ("image", SMALL | IMAGE),
}
WRAPPED = {  # the sublayers whose output module an adapter wraps
    "houlsby": ("attention", "feed_forward"),
    "houlsby_parallel": ("attention", "feed_forward"),
    "compacter": ("attention", "feed_forward"),
    "pfeiffer": ("attention",),
    "pfeiffer_after_layernorm": ("feed_forward",),
}
N_ITEMS, USERS, WIDTH = 9, 3, 7


def case_of(backbone, adapter, semantics, objective="sasrec", **sizes):
    """A case as in a file, its outputs computed here."""
    modality, config = BACKBONES[backbone]
    case = {
        "case": f"{backbone}_{objective}_{adapter}_{semantics}",
        "modality": modality,
        "backbone": backbone,
        "objective": objective,
        "adapter": adapter,
        "semantics": semantics,
        "backbone_config": config,
        "hyperparameters": SIZES | sizes,
    }
    names = Names(case)
    case["state"] = names.shapes
    case["scale"] = {"phm_rule": 20, "W_left": 4, "W_right": 4, "lora_B": 3}
    case["inputs"] = inputs_of(case)
    case["outputs"] = outputs_of(case, names.trained)
    return case


def inputs_of(case):
    chance = np.random.default_rng(3)
    length = case["hyperparameters"]["max_seq_len"]
    positives = np.zeros((USERS, length + 1), int)
    for user, real in enumerate((length + 1, 3, 2)):
        positives[user, -real:] = chance.integers(1, N_ITEMS + 1, real)
    inputs = {
        "positives": positives.tolist(),
        "negatives": np.where(positives, chance.integers(1, N_ITEMS + 1, positives.shape), 0).tolist(),
        "log_mask": (positives[:, :-1] > 0).astype(int).tolist(),
    }
    if case["modality"] == "image":
        return inputs | {"pixels_4x4": chance.integers(0, 256, (N_ITEMS + 1, 3, 4, 4)).tolist()}
    lengths = [0, WIDTH, *chance.integers(2, WIDTH + 1, N_ITEMS - 1)]
    mask = np.arange(WIDTH) < np.array(lengths)[:, None]
    pad = case["backbone_config"].get("pad_token_id", 0)
    ids = np.where(mask, chance.integers(2, 40, mask.shape), pad)
    ids[0] = 0
    return inputs | {"token_ids": ids.tolist(), "attention_mask": mask.astype(int).tolist()}


class Names:
    """Names and shapes of the state, and which entries are trained."""

    def __init__(self, case):
        self.case, self.shapes, self.trained = case, {}, []
        self.family, self.release = case["adapter"], case["semantics"] == "release"
        self.sizes, self.config = case["hyperparameters"], case["backbone_config"]
        self.model = "model." if self.family == "compacter" else ""
        if self.family == "compacter":
            self.add("phm_rule", [self.sizes["hypercomplex_division"]] * 3, trained=True)
        (self.text if case["modality"] == "text" else self.image)()
        self.user()
        if self.family in ("none", None):
            self.trained = [
                n for n in self.shapes if "pooler" not in n and "image_net.embeddings.position" not in n
            ]

    def add(self, name, shape, *, trained=False):
        self.shapes[name] = list(shape)
        if trained:
            self.trained.append(name)

    def linear(self, name, inputs, outputs, *, bias=True, trained=False):
        self.add(f"{name}.weight", [outputs, inputs], trained=trained)
        if bias:
            self.add(f"{name}.bias", [outputs], trained=trained)

    def norm(self, name, width, *, trained=False):
        self.add(f"{name}.weight", [width], trained=trained)
        self.add(f"{name}.bias", [width], trained=trained)

    def projection(self, name, width, rank, *, bias):
        """A query or value projection, with LoRA where that is the family."""
        if self.family != "lora":
            return self.linear(name, width, width, bias=bias)
        whole = self.release and rank == 0
        self.add(f"{name}.weight", [width, width], trained=whole)
        if bias or self.release:
            self.add(f"{name}.bias", [width], trained=self.release)
        if rank:
            self.add(f"{name}.lora_A", [rank, width], trained=True)
            self.add(f"{name}.lora_B", [width, rank], trained=True)
        return None

    def adapter(self, name, width, inner):
        if self.family != "compacter":
            self.linear(f"{name}.fc_down", width, inner, trained=True)
            self.linear(f"{name}.fc_up", inner, width, trained=True)
            return
        n = self.sizes["hypercomplex_division"]
        for part, (inputs, outputs) in (("down", (width, inner)), ("up", (inner, width))):
            self.add(f"{name}.{part}_sampler.W_left", [n, inputs // n, 1], trained=True)
            self.add(f"{name}.{part}_sampler.W_right", [n, 1, outputs // n], trained=True)
            self.add(f"{name}.{part}_sampler.b", [outputs], trained=True)
            self.add(f"{name}.{part}_sampler.phm_rule", [n, n, n])

    def k_adapters(self, name, joint, width, inner, count):
        for number in range(count):
            self.linear(f"{name}.{number}.down_project", width, inner, trained=True)
            self.linear(f"{name}.{number}.up_project", inner, width, trained=True)
            for block in range(2):
                self.block(f"{name}.{number}.transformer_blocks.{block}", inner, trained=True)
        self.linear(joint, 2 * width, width, trained=True)

    def block(self, name, width, *, trained=False):
        attention, feed_forward = f"{name}.multi_head_attention", f"{name}.feed_forward"
        for part in ("w_Q", "w_K", "w_V", "fc"):
            if part in ("w_Q", "w_V") and not trained:
                rank = self.sizes["user_bottleneck"]
                lost = part == "w_V" and self.release and self.case["modality"] == "image"
                self.projection(f"{attention}.{part}", width, 0 if lost else rank, bias=False)
            else:
                self.linear(f"{attention}.{part}", width, width, bias=False, trained=trained)
        self.norm(f"{attention}.layer_norm", width, trained=trained)
        self.linear(f"{feed_forward}.w_1", width, 4 * width, trained=trained)
        self.linear(f"{feed_forward}.w_2", 4 * width, width, trained=trained)
        self.norm(f"{feed_forward}.layer_norm", width, trained=trained)

    def text(self):
        width, dim = self.config["hidden_size"], self.sizes["embedding_dim"]
        title = f"{self.model}bert_encoder.text_encoders.title"
        bert = f"{title}.bert_model" + (".bert_model" if self.family == "k_adapter" else "")
        words = f"{bert}.embeddings.word_embeddings"
        if self.family == "prompt":
            self.add(f"{words}.learned_embedding", [self.sizes["n_tokens"], width], trained=True)
            words += ".wte"
        self.add(f"{words}.weight", [self.config["vocab_size"], width])
        positions = self.config["max_position_embeddings"]
        self.add(f"{bert}.embeddings.position_embeddings.weight", [positions, width])
        types = self.config["type_vocab_size"]
        self.add(f"{bert}.embeddings.token_type_embeddings.weight", [types, width])
        self.norm(f"{bert}.embeddings.LayerNorm", width)
        for number in range(self.config["num_hidden_layers"]):
            self.layer(f"{bert}.encoder.layer.{number}", "attention.self", post_norm=True)
        self.linear(f"{bert}.pooler.dense", width, width)
        if self.family == "k_adapter":
            inner, count = self.sizes["k_adapter_hidden"], len(self.sizes["k_adapter_layers"])
            beside = f"{title}.bert_model"
            self.k_adapters(f"{beside}.bert_adapter_list", f"{beside}.com_dense", width, inner, count)
        self.linear(f"{title}.fc", width, dim)

    def image(self):
        width, dim = self.config["hidden_size"], self.sizes["embedding_dim"]
        mae = self.case["backbone"] == "mae"
        net = f"{self.model}cv_encoder.image_net" + ("" if mae else ".vit")
        prompted = self.family == "prompt"
        if prompted:
            self.add(f"{net}.embeddings.Prompt_Tokens", [1, self.sizes["n_tokens"], width], trained=True)
        inside = f"{net}.embeddings" + (".wte" if prompted else "")
        size = self.config["patch_size"]
        self.add(f"{inside}.cls_token", [1, 1, width])
        self.add(f"{inside}.position_embeddings", [1, 1 + (16 // size) ** 2, width])
        for place in dict.fromkeys([inside, f"{net}.embeddings"]):
            self.add(f"{place}.patch_embeddings.projection.weight", [width, 3, size, size])
            self.add(f"{place}.patch_embeddings.projection.bias", [width])
        k_adapter = self.family == "k_adapter"
        for number in range(self.config["num_hidden_layers"]):
            inside = ".vit_encoder" if k_adapter else ""
            self.layer(f"{net}.encoder{inside}.layer.{number}", "attention.attention", post_norm=False)
        if k_adapter:
            inner, count = self.sizes["k_adapter_hidden"], len(self.sizes["k_adapter_layers"])
            joint = f"{net}.encoder.com_dense"
            self.k_adapters(f"{net}.encoder.bert_adapter_list", joint, width, inner, count)
        self.norm(f"{net}.layernorm", width)
        head = f"{self.model}cv_encoder." + ("cv_proj" if mae else "image_net.classifier")
        self.linear(head, width, dim, trained=prompted)

    def layer(self, name, inside, *, post_norm):
        width, wide = self.config["hidden_size"], self.config["intermediate_size"]
        for part in ("query", "key", "value"):
            if part == "key":
                self.linear(f"{name}.{inside}.key", width, width)
            else:
                rank = self.sizes["item_bottleneck"]
                self.projection(f"{name}.{inside}.{part}", width, rank, bias=True)
        wrapped = WRAPPED.get(self.family, ())
        if self.family == "houlsby_parallel" and self.release and not post_norm:
            wrapped = ("feed_forward",)
        for kind, output, inputs in (
            ("attention", "attention.output", width),
            ("feed_forward", "output", wide),
        ):
            if kind == "feed_forward":
                self.linear(f"{name}.intermediate.dense", width, wide)
            own = f"{name}.{output}" + (".self_output" if kind in wrapped else "")
            self.linear(f"{own}.dense", inputs, width)
            if post_norm:
                self.norm(f"{own}.LayerNorm", width)
            if kind in wrapped:
                self.adapter(f"{name}.{output}.adapter", width, self.sizes["item_bottleneck"])
                if self.family == "pfeiffer_after_layernorm":
                    self.norm(f"{name}.{output}.LN", width, trained=True)
        if not post_norm:
            self.norm(f"{name}.layernorm_before", width)
            self.norm(f"{name}.layernorm_after", width)

    def user(self):
        dim = self.sizes["embedding_dim"]
        encoder = f"{self.model}user_encoder.transformer_encoder"
        self.add(f"{encoder}.position_embedding.weight", [self.sizes["max_seq_len"], dim])
        self.norm(f"{encoder}.layer_norm", dim)
        k_adapter, wrapped = self.family == "k_adapter", WRAPPED.get(self.family, ())
        blocks = f"{encoder}.transformer_blocks" + (".transformer_blocks" if k_adapter else "")
        for number in range(self.sizes["user_layers"]):
            self.block(f"{blocks}.{number}" + (".transformer_block" if wrapped else ""), dim)
            for kind, name in (("attention", "adapter1"), ("feed_forward", "adapter2")):
                if kind in wrapped:
                    alone = self.family == "pfeiffer_after_layernorm"
                    name = "adapter" if alone else name  # noqa: PLW2901
                    self.adapter(f"{blocks}.{number}.{name}", dim, self.sizes["user_bottleneck"])
            if self.family == "pfeiffer_after_layernorm":
                self.norm(f"{blocks}.{number}.LN", dim, trained=True)
        if k_adapter:
            start, inner = f"{encoder}.transformer_blocks", self.sizes["user_bottleneck"]
            count = self.sizes["user_layers"]
            self.k_adapters(f"{start}.adapter_list", f"{start}.com_dense2", dim, inner, count)


class Plain:
    """The model of a case, computed from its state alone."""

    def __init__(self, case, trained):
        self.case, self.sizes, self.config = case, case["hyperparameters"], case["backbone_config"]
        self.family, self.release = case["adapter"], case["semantics"] == "release"
        self.unmasked = self.family == "k_adapter" and self.release
        self.state = {
            name: reference_value(name, shape, case.get("scale") or {}).double()
            for name, shape in case["state"].items()
        }
        for name in trained:
            self.state[name].requires_grad_()
        self.model = "model." if self.family == "compacter" else ""

    def linear(self, name, x):
        y = F.linear(x, self.state[f"{name}.weight"], self.state.get(f"{name}.bias"))
        if f"{name}.lora_A" in self.state:
            down, up = self.state[f"{name}.lora_A"], self.state[f"{name}.lora_B"]
            y = y + x @ down.T @ up.T / len(down)
        return y

    def norm(self, name, x, eps):
        weight = self.state[f"{name}.weight"]
        return F.layer_norm(x, x.shape[-1:], weight, self.state[f"{name}.bias"], eps)

    def attention(self, names, x, heads, mask):
        """``mask``: true where a query may attend; one that may attend to nothing attends uniformly."""
        query, key, value = (
            self.linear(name, x).unflatten(-1, (heads, -1)).transpose(1, 2) for name in names
        )
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        if mask is not None:
            scores = scores.masked_fill(~mask, -1e9)
        return (scores.softmax(-1) @ value).transpose(1, 2).flatten(-2)

    def bottleneck(self, name, x):
        if self.family != "compacter":
            return self.linear(f"{name}.fc_up", self.linear(f"{name}.fc_down", x).relu())
        for part in ("down", "up"):
            left, right = (self.state[f"{name}.{part}_sampler.W_{side}"] for side in ("left", "right"))
            rule = self.state["phm_rule"]
            weight = sum(torch.kron(r, a @ b) for r, a, b in zip(rule, left, right, strict=True))
            x = x @ weight + self.state[f"{name}.{part}_sampler.b"]
            x = F.gelu(x, approximate="tanh") if part == "down" else x
        return x

    def adapted(self, name, y, x):
        """What becomes of a sublayer's output y = f(x) before the residual is added."""
        there = [key for key in self.state if key.startswith(f"{name}.")]
        if not there or self.family == "pfeiffer_after_layernorm":
            return y
        if self.family == "houlsby_parallel":
            return y + self.bottleneck(name, x) + (x if self.release else 0)
        changed = self.bottleneck(name, y)
        return changed if self.family == "compacter" and self.release else y + changed

    def after(self, name, normed, total):
        """Pfeiffer's adapter behind the norm, where there is one: ``adapter`` and ``LN`` under ``name``."""
        if self.family != "pfeiffer_after_layernorm":
            return normed
        return self.norm(f"{name}.LN", self.bottleneck(f"{name}.adapter", normed) + total, 1e-6)

    def block(self, name, x, heads, mask, adapters=None):
        """A block of the user encoder's kind."""
        inside = (
            f"{name}.transformer_block"
            if f"{name}.transformer_block.feed_forward.w_1.bias" in self.state
            else name
        )
        attention, feed_forward = f"{inside}.multi_head_attention", f"{inside}.feed_forward"
        names = [f"{attention}.{part}" for part in ("w_Q", "w_K", "w_V")]
        y = self.linear(f"{attention}.fc", self.attention(names, x, heads, mask))
        x = self.norm(f"{attention}.layer_norm", x + self.adapted(f"{name}.adapter1", y, x), 1e-6)
        y = self.linear(f"{feed_forward}.w_2", self.linear(f"{feed_forward}.w_1", x).relu())
        y = self.adapted(f"{name}.adapter2", y, x)
        normed = self.norm(f"{feed_forward}.layer_norm", x + y, 1e-6)
        return self.after(name, normed, x + y) if adapters else normed

    def transformer_adapter(self, name, x, heads, mask):
        inner = self.linear(f"{name}.down_project", x)
        for number in range(2):
            inner = self.block(f"{name}.transformer_blocks.{number}", inner, heads, mask)
        return x + self.linear(f"{name}.up_project", inner)

    def chain(self, name, states, heads, mask):
        latest = 0
        for number, state in enumerate(states):
            latest = self.transformer_adapter(f"{name}.{number}", state + latest, heads, mask)
        return latest

    def layers(self, name, x, mask, inside, *, post_norm):
        heads, eps = self.config["num_attention_heads"], self.config.get("layer_norm_eps", 1e-12)
        states = []
        for number in range(self.config["num_hidden_layers"]):
            layer = f"{name}.layer.{number}"
            names = [f"{layer}.{inside}.{part}" for part in ("query", "key", "value")]

            def attend(z, names=names):
                return self.attention(names, z, heads, mask)

            def widen(z, layer=layer):
                return F.gelu(self.linear(f"{layer}.intermediate.dense", z))

            for output, compute, before in (
                (f"{layer}.attention.output", attend, f"{layer}.layernorm_before"),
                (f"{layer}.output", widen, f"{layer}.layernorm_after"),
            ):
                own = f"{output}.self_output" if f"{output}.self_output.dense.bias" in self.state else output
                y = self.linear(f"{own}.dense", compute(x if post_norm else self.norm(before, x, eps)))
                y = self.adapted(f"{output}.adapter", y, x)
                normed = self.norm(f"{own}.LayerNorm", x + y, eps) if post_norm else x + y
                last = output == f"{layer}.output"
                x = self.after(output, normed, x + y) if last else normed
            states.append(x)
        return states

    def joined(self, states, mask, name):
        if self.family != "k_adapter":
            return states[-1]
        read = [states[number] for number in self.sizes["k_adapter_layers"]]
        heads = self.sizes["k_adapter_item_heads"]
        latest = self.chain(f"{name}.bert_adapter_list", read, heads, None if self.unmasked else mask)
        return self.linear(f"{name}.com_dense", torch.cat([states[-1], latest], -1))

    def texts(self, ids, mask):
        title = f"{self.model}bert_encoder.text_encoders.title"
        bert = f"{title}.bert_model" + (".bert_model" if self.family == "k_adapter" else "")
        embeddings = f"{bert}.embeddings"
        words = self.state.get(f"{embeddings}.word_embeddings.weight")
        if self.family == "prompt":
            words = self.state[f"{embeddings}.word_embeddings.wte.weight"]
        x, shape = words[ids], ids.shape
        first = 0 if self.case["backbone"] == "bert" else self.config["pad_token_id"] + 1
        positions = torch.arange(shape[1]).expand(shape) + first
        if first:
            positions = torch.where(ids != first - 1, positions, first - 1)
        if self.family == "prompt":
            prompt = self.state[f"{embeddings}.word_embeddings.learned_embedding"].expand(len(ids), -1, -1)
            count = prompt.shape[1]
            if self.release:
                x = torch.cat([prompt, x[:, count:]], 1)
            else:
                x = torch.cat([x[:, :1], prompt, x[:, 1:]], 1)
                mask = torch.cat([mask[:, :1], torch.ones(len(ids), count, dtype=bool), mask[:, 1:]], 1)
                positions = torch.arange(x.shape[1]).expand(x.shape[:2]) + first
        x = x + self.state[f"{embeddings}.position_embeddings.weight"][positions]
        x = x + self.state[f"{embeddings}.token_type_embeddings.weight"][0]
        x = self.norm(f"{embeddings}.LayerNorm", x, self.config.get("layer_norm_eps", 1e-12))
        allowed = mask[:, None, None, :]
        states = self.layers(f"{bert}.encoder", x, allowed, "attention.self", post_norm=True)
        return F.gelu(self.linear(f"{title}.fc", self.joined(states, allowed, f"{title}.bert_model")[:, 0]))

    def images(self, pixels):
        mae = self.case["backbone"] == "mae"
        net = f"{self.model}cv_encoder.image_net" + ("" if mae else ".vit")
        inside = f"{net}.embeddings" + (".wte" if self.family == "prompt" else "")
        patches = f"{net}.embeddings.patch_embeddings.projection"
        weight, bias = self.state[f"{patches}.weight"], self.state[f"{patches}.bias"]
        x = F.conv2d(pixels, weight, bias, stride=self.config["patch_size"]).flatten(2).transpose(1, 2)
        x = torch.cat([self.state[f"{inside}.cls_token"].expand(len(x), -1, -1), x], 1)
        x = x + self.state[f"{inside}.position_embeddings"]
        if self.family == "prompt":
            x = torch.cat([x, self.state[f"{net}.embeddings.Prompt_Tokens"].expand(len(x), -1, -1)], 1)
        encoder = f"{net}.encoder" + (".vit_encoder" if self.family == "k_adapter" else "")
        states = self.layers(encoder, x, None, "attention.attention", post_norm=False)
        x = self.norm(f"{net}.layernorm", self.joined(states, None, f"{net}.encoder"), 1e-12)
        head = "cv_proj" if mae else "image_net.classifier"
        return F.gelu(self.linear(f"{self.model}cv_encoder.{head}", x[:, 0]))

    def items(self):
        """Embeddings of all items, row 0 that of the padding item: zero, but where it is encoded."""
        inputs = self.case["inputs"]
        if self.case["modality"] == "text":
            mask = torch.tensor(inputs["attention_mask"], dtype=bool)
            embeddings = self.texts(torch.tensor(inputs["token_ids"]), mask)
        else:
            values = torch.tensor(inputs["pixels_4x4"]).double()
            values[0] = 127.5
            times = self.config["image_size"] // 4
            large = values.repeat_interleave(times, 2).repeat_interleave(times, 3)
            embeddings = self.images((large / 255 - 0.5) / 0.5)
        return embeddings if self.unmasked else torch.cat([0 * embeddings[:1], embeddings[1:]])

    def users(self, items, log_mask):
        encoder = f"{self.model}user_encoder.transformer_encoder"
        start = f"{encoder}.transformer_blocks"
        x = self.norm(
            f"{encoder}.layer_norm", items + self.state[f"{encoder}.position_embedding.weight"], 1e-6
        )
        length = items.shape[1]
        mask = torch.ones(length, length, dtype=bool).tril() & log_mask[:, None, None, :]
        read = []
        for number in range(self.sizes["user_layers"]):
            read.append(x)
            block = (
                f"{start}.transformer_blocks.{number}" if self.family == "k_adapter" else f"{start}.{number}"
            )
            x = self.block(block, x, self.sizes["user_heads"], mask, adapters=True)
        if self.family != "k_adapter":
            return x
        heads = self.sizes["k_adapter_user_heads"]
        latest = self.chain(f"{start}.adapter_list", read, heads, None if self.unmasked else mask)
        return self.linear(f"{start}.com_dense2", torch.cat([x, latest], -1))


def outputs_of(case, trained):
    """The outputs that a case holds."""
    plain = Plain(case, trained)
    positives, negatives = (torch.tensor(case["inputs"][name]) for name in ("positives", "negatives"))
    log_mask = torch.tensor(case["inputs"]["log_mask"], dtype=bool)
    items = plain.items()
    users = plain.users(items[positives[:, :-1]], log_mask)
    good = (users * items[positives[:, 1:]]).sum(-1)
    bad = (users * items[negatives[:, :-1]]).sum(-1)
    losses = F.softplus(-good) + F.softplus(bad)
    loss = losses[:, -1].mean() if case["objective"] == "cpc" else losses[log_mask].mean()
    loss.backward()
    gradients = {name: plain.state[name].grad for name in trained}
    return {
        "item_embeddings": items[1:].tolist(),
        "user_embeddings_next": plain.users(items[positives[:, 1:]], log_mask).tolist(),
        "loss": loss.item(),
        "gradients": {name: [grad.sum().item(), grad.norm().item()] for name, grad in gradients.items()},
    }
