"""The peer of distill: sentence-transformers' own recipe for a student with fewer layers, on the same sentences.

    python tests/benchmarks/distill_peer.py sentences handbook.txt sentences.txt
    OTHER_ENVIRONMENT/bin/python tests/benchmarks/distill_peer.py train TEACHER sentences.txt OUT [UPDATES [RATE]]

`sentences` writes what `distill` trains on (training and calibration split), one a line. `train` needs
sentence-transformers and datasets, not corecompress, and does what their example model_distillation.py does: layers
0, 2, 5 of six are kept, the student learns the teacher's embeddings, computed once, with MSELoss; bfloat16 and a
cosine as in distill. Prints the process's CPU seconds of training.
"""

import sys
import time
from pathlib import Path


def sentences(text: str, out: str) -> None:
    from transformers import AutoTokenizer

    from corecompress.api import open_data
    from corecompress.demo import demo_folder

    data, tokenizer = open_data(f"text:{text}", demo_folder()), AutoTokenizer.from_pretrained(demo_folder())
    with open(out, "w", encoding="utf-8") as file:
        for split in ("training", "calibration"):
            for batch in data.batches(0, split):
                for ids in batch["input_ids"]:
                    file.write(tokenizer.decode(ids, skip_special_tokens=True) + "\n")


def train(teacher_folder: str, text: str, out: str, updates: str = "1534", rate: str = "1e-3") -> None:
    import torch
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.losses import MSELoss

    lines = Path(text).read_text(encoding="utf-8").splitlines()
    teacher, student = (SentenceTransformer(teacher_folder, device="cpu") for _ in range(2))
    student.max_seq_length = teacher.max_seq_length = 128
    model = student[0].auto_model
    model.encoder.layer = torch.nn.ModuleList([model.encoder.layer[n] for n in (0, 2, 5)])
    model.config.num_hidden_layers = 3
    begun = time.process_time()
    labels = teacher.encode(lines, batch_size=32, show_progress_bar=False)
    arguments = SentenceTransformerTrainingArguments(
        output_dir=out + "-checkpoints",
        max_steps=int(updates),
        per_device_train_batch_size=32,
        learning_rate=float(rate),
        warmup_steps=round(0.06 * int(updates)),
        lr_scheduler_type="cosine",
        bf16=True,
        use_cpu=True,
        save_strategy="no",
        report_to="none",
        logging_steps=100,
        seed=0,
    )
    data = Dataset.from_dict({"sentence": lines, "label": labels.tolist()})
    SentenceTransformerTrainer(model=student, args=arguments, train_dataset=data, loss=MSELoss(student)).train()
    print(f"CPU seconds: {time.process_time() - begun:.0f}")
    student.save(out)


if __name__ == "__main__":
    {"sentences": sentences, "train": train}[sys.argv[1]](*sys.argv[2:])
