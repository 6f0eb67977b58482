"""PRESETS: name -> a study's settings, from which a user's flags start."""

from __future__ import annotations

from cifar_tune.config import DataConfig, LatencyConfig, RaceConfig, RecipeConfig, ViewSettings
from cifar_tune.study import SpaceConfig, StudyConfig

PRESETS: dict[str, StudyConfig] = {
    # Handwritten digits, a few minutes on a laptop: shows the whole way from data to answer.
    "quick": StudyConfig(
        preset="quick",
        # sized for 8x8 images, and few kernels: a compiler builds a variant in a fifth of MobileNetV3's time
        teacher="resnet_narrow",
        students=("resnet_tiny",),
        num_samples=4,
        teacher_samples=2,
        epochs=5,
        grace_epochs=3,
        final_top=1,
        final_seeds=2,
        runtimes=("onnxruntime",),
        data=DataConfig(source="digits"),
        recipe=RecipeConfig(batch_size=32),
        space=SpaceConfig(lr_range=(0.01, 0.1)),
        views=ViewSettings(
            crop_padding=0,  # 8x8 digits have no border to spare: a shift of one pixel costs twice the epochs
        ),
        latency=LatencyConfig(
            iterations=240,
            max_iterations=240,
            fresh_processes=False,
            time_limit=5.0,
        ),
        race=RaceConfig(
            time_limit=60.0,
            memory_gb=4.0,
        ),
    ),
    # CIFAR-10 on two cores: 106 minutes on a Xeon with AMX (docs/results/cifar10); 3.2 h, with six final epochs, on one
    # that trains in fp32.
    # docs/log.md tells how the numbers were chosen.
    "cpu": StudyConfig(
        preset="cpu",
        students=("speednet",),
        teacher_samples=1,
        teacher_epochs=8,
        teacher_progressive=True,
        epochs=4,
        search_images=5000,
        grace_epochs=1,
        final_top=1,
        final_seeds=2,
        final_epochs=10,
        runtimes=("onnxruntime", "openvino"),
        space=SpaceConfig(
            lr_range=(0.02, 0.2),  # above 0.1 a few epochs of few images go nowhere
            teacher_lr_range=(0.1, 0.2),  # the only teacher takes the lower bound: ResNet-18's usual 0.1
            schedules=("one_cycle", "cosine"),
        ),
        views=ViewSettings(
            crop_padding=2,  # few epochs: a narrower border is learnt sooner
            distinct=4,
        ),
    ),
    # Some hundred to some thousand images of a user's own: small batches, and AdamW, which minds the rate less.
    "folder": StudyConfig(
        preset="folder",
        teacher="resnet_narrow",
        students=("speednet",),
        num_samples=8,
        teacher_samples=2,
        epochs=8,
        teacher_epochs=10,
        final_top=1,
        final_seeds=2,
        final_epochs=12,
        runtimes=("onnxruntime", "openvino"),
        data=DataConfig(
            image_size=96,
            validation_fraction=0.2,
        ),
        recipe=RecipeConfig(
            batch_size=16,
            optimizer="adamw",
        ),
        space=SpaceConfig(
            lr_range=(0.0005, 0.003),
            schedules=("one_cycle", "cosine"),
        ),
    ),
    # Meant for one data-centre GPU and five minutes on CIFAR-10: a guess, for want of one. Rows are few, and of one
    # process each: starting processes with CUDA would take most of the time.
    "gpu": StudyConfig(
        preset="gpu",
        students=("speednet",),
        num_samples=12,
        teacher_samples=1,
        teacher_epochs=14,
        epochs=6,
        search_images=15000,
        final_top=1,
        final_seeds=2,
        final_epochs=20,
        runtimes=("cudagraph", "tensorrt"),
        recipe=RecipeConfig(batch_size=512),
        space=SpaceConfig(
            lr_range=(0.2, 1.6),
            schedules=("one_cycle", "cosine"),
        ),
        latency=LatencyConfig(
            iterations=1000,
            fresh_processes=False,
            time_limit=3.0,
        ),
    ),
    # Two minutes, and every stage is there: what is interrupted again and again to see that nothing is lost.
    "chaos": StudyConfig(
        preset="chaos",
        teacher="resnet_tiny",
        students=("resnet_tiny",),
        num_samples=3,
        teacher_samples=1,
        epochs=2,
        early_stopping=False,  # whom ASHA stops depends on who came first
        final_top=1,
        final_seeds=1,
        min_accuracy=0.1,
        compiled_variants=False,
        runtimes=(),
        dashboard=False,
        data=DataConfig(
            source="digits",
            train_images=400,
            test_images=100,
        ),
        recipe=RecipeConfig(batch_size=32),
        space=SpaceConfig(lr_range=(0.01, 0.1)),
        views=ViewSettings(crop_padding=0),
        latency=LatencyConfig(
            warmup=5,
            iterations=240,
            max_iterations=240,
            fresh_processes=False,
            time_limit=1.0,
        ),
        race=RaceConfig(
            time_limit=1.0,
            contenders=3,
        ),
    ),
}
