// The camera, in a dialog. It is on only while the dialog is open.

import { text } from "./strings.js";

export function setUp(taken) {
  const dialog = document.getElementById("camera");
  const video = document.getElementById("video");
  const problem = document.getElementById("camera-problem");
  const shutter = document.getElementById("camera-take");

  async function open() {
    problem.textContent = "";
    shutter.disabled = true;
    dialog.showModal();
    if (!navigator.mediaDevices) {
      problem.textContent = text("camera-insecure");
      return;
    }
    try {
      const stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
      if (!dialog.open) {
        stream.getTracks().forEach((track) => track.stop());
        return;
      }
      video.srcObject = stream;
      await video.play();
      shutter.disabled = false;
    } catch {
      problem.textContent = text("camera-none");
    }
  }

  function off() {
    video.srcObject?.getTracks().forEach((track) => track.stop());
    video.srcObject = null;
  }

  function take() {
    const canvas = document.createElement("canvas");
    canvas.width = video.videoWidth;
    canvas.height = video.videoHeight;
    canvas.getContext("2d").drawImage(video, 0, 0);
    dialog.close();
    canvas.toBlob((blob) => {
      if (blob) taken(new File([blob], `${text("camera-name")}.png`, { type: "image/png" }));
    }, "image/png");
  }

  document.getElementById("camera-open").addEventListener("click", open);
  document.getElementById("camera-close").addEventListener("click", () => dialog.close());
  shutter.addEventListener("click", take);
  dialog.addEventListener("close", off);
}
