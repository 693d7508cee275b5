/// <reference lib="esnext.disposable" preserve="true" />
// errors

// where activations come from
export { ActivationBuffer, type ModelActivationOptions } from "./activations/buffer.js";
export {
  type ContextOptions,
  type ContextPosition,
  Contexts,
  contexts,
  type TextTokenizer,
} from "./activations/contexts.js";
export { Corpus, type DocumentPiece } from "./activations/corpus.js";
export { type ActivationModel, Harvest, type HarvestedRows, type HarvestOptions } from "./activations/harvest.js";
export type { ActivationManifest } from "./activations/manifest.js";
export type { ActivationHook, ActivationSource, Json, SourceState } from "./activations/source.js";
export { type StoreActivationsOptions, storeActivations } from "./activations/storeActivations.js";
export { StoredActivations, type StoredActivationsOptions } from "./activations/storedActivations.js";
// analysis
export type { Histogram } from "./analysis/activationHistogram.js";
export { type Contexts as ContextSource, limitTokens } from "./analysis/contextBatches.js";
export { coreEvaluation, type EvaluatedSae, type EvaluationSetting } from "./analysis/coreEvaluation.js";
export { decoderNormsPerHook, type LatentDecoderNorms } from "./analysis/decoderNorms.js";
export { rankLatents } from "./analysis/featureRanking.js";
export type { SummaryNumber } from "./analysis/featureReport.js";
export { featureSummary } from "./analysis/featureSummary.js";
export {
  type CollectedFeatures,
  collectFeatures,
  type ExampleWindow,
  type FeatureExample,
  type FeatureOptions,
  type FeatureStatistics,
} from "./analysis/features.js";
export type { FeatureTextOptions } from "./analysis/featureText.js";
export { type AttachOptions, HookedSaeTransformer, withSae } from "./analysis/hookedSaeTransformer.js";
export type { HookVariance } from "./analysis/hookVariance.js";
export {
  hasLogitEffects,
  type LatentLogitEffects,
  type LogitEffectOptions,
  logitEffects,
  type TokenEffect,
} from "./analysis/logitEffects.js";
export {
  evaluateAllInModel,
  evaluateInModel,
  type ModelEvaluation,
  type ModelEvaluationOptions,
} from "./analysis/modelEvaluation.js";
export type { PairingOptions } from "./analysis/pairing.js";
export { paretoFront, type Quality, type SweepPoint } from "./analysis/pareto.js";
export { type ParetoReport, paretoHtml } from "./analysis/paretoPage.js";
export { paretoSvg } from "./analysis/paretoPicture.js";
export { type HookChoice, hookForSae, hooksForSae, type SaeHooks } from "./analysis/saeHook.js";
export { spliceHook } from "./analysis/spliceHook.js";
export { type TextFeatureOptions, type TokenFeatures, textFeatures } from "./analysis/textFeatures.js";
// attribution: what a score owes to which words, tokens or latents
export type { Coalitions, Game, GameOptions } from "./attribution/coalitions.js";
export { type KernelOptions, kernelShapley } from "./attribution/kernelShapley.js";
export { type LatentGame, type LatentGameOptions, latentGame } from "./attribution/latentGame.js";
export { type FeatureSelection, type LimeExplanation, type LimeOptions, lime } from "./attribution/lime.js";
export { type NextTokenMeasure, singleToken, type TextScoreOptions, textScores } from "./attribution/nextToken.js";
export { type OwenOptions, owenValues } from "./attribution/owenValues.js";
export { type PlayerTree, textTree } from "./attribution/playerTree.js";
export {
  type EstimatedShapleyValues,
  exactShapley,
  type PermutationOptions,
  permutationShapley,
  type ShapleyValues,
} from "./attribution/shapley.js";
export { type TokenGame, type TokenGameOptions, tokenGame } from "./attribution/tokenGame.js";
export { type WordOptions, WordPlayers } from "./attribution/words.js";
// whether latents can be relied on
export { AUDIT_TOPICS, type AuditOptions, auditSae } from "./audit/audit.js";
export { auditHtml } from "./audit/auditPage.js";
export {
  type AuditFigure,
  type AuditReport,
  type AuditSection,
  type AuditTopic,
  auditJson,
} from "./audit/auditReport.js";
export { type AuditTextOptions, auditText } from "./audit/auditText.js";
export { type CounterfactualPair, counterfactualPairs } from "./audit/counterfactualEdits.js";
// five methods on one prompt
export {
  type Comparison,
  type ComparisonOptions,
  compareMethods,
  type MethodOutcome,
} from "./comparison/compareMethods.js";
export { comparisonHtml } from "./comparison/comparisonPage.js";
export { type ComparisonReport, comparisonText } from "./comparison/comparisonReport.js";
// engine: devices, tensors, codes, kernels
export { Codes, type CodesContent, EntryValues, FeatureSet } from "./engine/codes.js";
export { Device, type DeviceName, type DeviceOptions, type MemoryUse, type Precision } from "./engine/device.js";
export { drawFeatures, type FeatureDistribution } from "./engine/drawFeatures.js";
export type { EntryFunction, EntryProduct } from "./engine/entryKernels.js";
export type { Handle } from "./engine/handle.js";
export { KeptGradient } from "./engine/keptGradient.js";
export {
  type AdamStep,
  type Clip,
  type EntryTerm,
  Kernels,
  type Moments,
  type RowGradient,
} from "./engine/kernels.js";
export { RandomGenerator } from "./engine/random.js";
export type { Selection } from "./engine/selection.js";
export { type DType, Tensor, type TypedArray } from "./engine/tensor.js";
export type { Activation, AttentionOperands, Sampling } from "./engine/transformerKernels.js";
export { type ErrorCode, MonosemError } from "./errors.js";
// SAEBench's evaluations
export { type AbsorptionEvaluation, type AbsorptionOptions, evaluateAbsorption } from "./evaluation/absorption.js";
export type {
  AbsorptionOfLetters,
  AbsorptionProgress,
  LetterAbsorption,
  LetterOptions,
} from "./evaluation/absorptionOfLetters.js";
export {
  AUTO_INTERP,
  AUTO_INTERP_CHANCE,
  type AutoInterpEvaluation,
  type AutoInterpLatent,
  type AutoInterpOptions,
  evaluateAutoInterp,
} from "./evaluation/autoInterp.js";
export {
  absorptionConfig,
  absorptionResult,
  autoInterpResult,
  type BenchSetting,
  sparseProbingResult,
} from "./evaluation/benchResults.js";
export { type BenchOutcome, benchText } from "./evaluation/benchText.js";
export {
  type BenchMeasurement,
  type BenchSubject,
  type SaeBenchResult,
  saeBenchResult,
} from "./evaluation/saeBenchResult.js";
export {
  type DatasetProbing,
  evaluateSparseProbing,
  type ProbeAccuracies,
  type ProbingDataset,
  type SparseProbingOptions,
} from "./evaluation/sparseProbing.js";
// one pass over a corpus for all latents, and the store of what it finds
export {
  buildFeatureStore,
  type FeatureStoreOptions,
  type FeatureStoreProgress,
} from "./features/buildFeatureStore.js";
// reports on latents, and exports to other dashboards
export type { ExportedLatents, ExportedRun } from "./features/dashboardFeature.js";
export {
  type FeatureActivationOptions,
  type FeatureActivations,
  featureActivations,
  type LatentOnText,
} from "./features/featureActivations.js";
export {
  type CollectedContext,
  type CollectorOptions,
  FeatureCollector,
  type LatentText,
} from "./features/featureCollector.js";
export type { FeaturePassOptions } from "./features/featurePass.js";
export { FeatureStore, type FeatureStoreSummary } from "./features/featureStore.js";
export type { CodeEntries } from "./features/firingChains.js";
export {
  type BehaviourFigures,
  behaviourFigures,
  type ContextPattern,
  contextPatterns,
} from "./features/kinds/behaviour.js";
export { type ConceptFigures, type ConceptOptions, conceptFigures } from "./features/kinds/concept.js";
export { type MeaningFigures, type MeaningOptions, meaningFigures } from "./features/kinds/meaning.js";
export { redTeamScan, type SafetyFigures, type SafetyOptions } from "./features/kinds/safety.js";
export { type SyntaxFigures, syntaxFigures } from "./features/kinds/syntax.js";
export type {
  ActivationQuantile,
  CoActiveLatent,
  DecoderNeighbour,
  DocumentActivation,
  LatentLogits,
  LatentRecord,
  PositionStatistics,
  TokenCount,
} from "./features/latentRecord.js";
export { type NeuronpediaOptions, writeNeuronpedia } from "./features/neuronpedia.js";
export { type PromptFeatures, type PromptRanking, promptFeatures } from "./features/promptFeatures.js";
export { type RecordPromptOptions, recordPrompt } from "./features/recordPrompt.js";
export type {
  ActiveLatent,
  FeatureReport,
  LatentDensities,
  RecordedPrompt,
  ReportedLatent,
} from "./features/report.js";
export { type ReportFolderOptions, writeReportFolder } from "./features/reportFolder.js";
export { writeReportPage } from "./features/reportPage.js";
export { featureReportText } from "./features/reportText.js";
export { type SaeDashboardOptions, writeSaeDashboard } from "./features/saeDashboard.js";
export { type LatentsInModelOptions, latentsInModel, statisticsLatents } from "./features/statisticsLatents.js";
export type { PassIdentity, StoreHeader } from "./features/storeHeader.js";
// files
export {
  type SafetensorsArray,
  type SafetensorsData,
  type SafetensorsDType,
  type SafetensorsEntry,
  SafetensorsFile,
  type SafetensorsInput,
  type SafetensorsSpecification,
  SafetensorsWriter,
  writeSafetensors,
} from "./formats/safetensors.js";
// published SAEs and models
export type {
  DownloadOptions,
  DownloadProgress,
  HubSnapshot,
} from "./hub/download.js";
// explanations of latents by a language model, and their scores
export { ChatClient, type ChatClientOptions, type ClientActivity } from "./interpretation/chatClient.js";
export type { ChatReply, ChatRequest, JudgeMessage, Usage } from "./interpretation/chatRequest.js";
export type { ExampleLimits } from "./interpretation/exampleCollector.js";
export type { Example, ExampleSide, LatentExamples, Window } from "./interpretation/examples.js";
export type { Explanation } from "./interpretation/explainer.js";
export { type GatherOptions, gatherExamples } from "./interpretation/gatherExamples.js";
export {
  type Interpretation,
  type InterpretedLatents,
  type InterpretOptions,
  interpretLatents,
  type Scorer,
} from "./interpretation/interpret.js";
export { interpretationHtml } from "./interpretation/interpretationPage.js";
export { type InterpretationReport, interpretationJson } from "./interpretation/interpretationReport.js";
export { interpretationText } from "./interpretation/interpretationText.js";
export type { Judge } from "./interpretation/judge.js";
export type { NoAnswer, NoAnswerCounts } from "./interpretation/judgeAnswer.js";
export type { TokenText } from "./interpretation/promptData.js";
export type { SimulationScore } from "./interpretation/simulation.js";
export type { Prices, SpendingLimits } from "./interpretation/spending.js";
export { type SurprisalScore, surprisalScore } from "./interpretation/surprisal.js";
export type { YesNoScore } from "./interpretation/yesNoScore.js";
// language models with hooks
export type { CachedNames, CachedRun } from "./models/activationCache.js";
export type { ChatMessage } from "./models/chatTemplate.js";
export {
  type CacheOptions,
  type ForwardOptions,
  type ForwardPasses,
  type GenerationOptions,
  type GenerationStep,
  getActName,
  type Hook,
  HookedTransformer,
  type LossOptions,
  type ModelConfig,
  type ModelInput,
  type ModelLoadOptions,
  type ModelSource,
  type NamedHook,
  type Prompt,
  type PromptOptions,
  type Tokens,
} from "./models/hookedTransformer.js";
export type { Architecture as ModelArchitecture, RotaryConfig, RotaryScaling } from "./models/modelConfig.js";
export type { ProcessingName, ProcessingOptions } from "./models/processing.js";
export { Tokenizer, type TokensWithOffsets } from "./models/tokenizer.js";
// activation patching: where a model carries the difference between two prompts
export { activationPatching } from "./patching/activationPatching.js";
export {
  type AttributionPatchingResult,
  attributionPatching,
  type LatentAttribution,
} from "./patching/attributionPatching.js";
export type { LatentDifferences, LatentPatchingOptions } from "./patching/latentDifferences.js";
export { type LatentPatch, latentPatching } from "./patching/latentPatching.js";
export type { PatchingOptions, PatchingResult } from "./patching/patchedRuns.js";
export { patchingHtml } from "./patching/patchingPage.js";
export { patchingPicture } from "./patching/patchingPicture.js";
export { type PatchingReport, type PatchingTextOptions, patchingText } from "./patching/patchingReport.js";
export {
  attributionMap,
  latentPatchingSweep,
  type PatchingMap,
  type PatchingSweep,
  patchingSweep,
  type SweepOver,
} from "./patching/patchingSweep.js";
export type { PatchMetric } from "./patching/patchMetric.js";
export type { Patch } from "./patching/patchRows.js";
export type { PatchingDirection, PromptPair } from "./patching/promptPair.js";
export { type PublishedSae, publishedReleases, publishedSae, publishedSaeIds } from "./pretrained/registry.js";
// probes
export {
  type ColumnMoments,
  DenseFeatures,
  type FeatureMatrix,
  type SparseEntries,
  SparseFeatures,
} from "./probing/featureMatrix.js";
export { fitL1LogisticProbe, type L1FitOptions } from "./probing/l1LogisticProbe.js";
export {
  type BinaryLabels,
  binaryLabels,
  type LabelledText,
  readLabelledTexts,
} from "./probing/labelledTexts.js";
export {
  balancedWeights,
  type FitOptions,
  fitLogisticProbe,
  fitRidgeProbe,
  type LinearProbe,
  type ProbeKind,
  probeScores,
} from "./probing/linearProbe.js";
export {
  type PooledFeatureOptions,
  type PooledFeatures,
  type Pooling,
  pooledFeatures,
} from "./probing/pooledFeatures.js";
export { type ProbeOptions, type ProbeOutcome, probe } from "./probing/probe.js";
export { type ProbeMetrics, probeMetrics } from "./probing/probeMetrics.js";
export { type SparseProbeOutcome, sparseProbes } from "./probing/sparseProbe.js";
// sparse autoencoders
export {
  type Architecture,
  type ArchitectureDefinition,
  type CheckedWith,
  type ConfiguredEncoder,
  type ConfiguredTraining,
  type DecoderPath,
  defineArchitecture,
  type Encoded,
  type EncoderPath,
  type Forward,
  type GatedPreActivations,
  type GradientStep,
  type Gradients,
  type Loss,
  naturalNumber,
  nonNegative,
  type OptionShape,
  type ParameterSpecification,
  positive,
  positiveInteger,
  type SaeParameters,
  type SavedForm,
  type TrainingStep,
} from "./sae/architecture.js";
export { type ArchitectureName, architectureNames, registerArchitecture } from "./sae/architectures.js";
export type {
  CheckedSaeConfig,
  CommonTrainingOptions,
  NewSaeConfig,
  SaeConfig,
  SaeNormalization,
  SaeTrainingConfig,
} from "./sae/config.js";
export { type DictionaryGeometry, dictionaryGeometry } from "./sae/dictionaryGeometry.js";
export {
  type EvaluatedBatch,
  type Evaluation,
  EvaluationAccumulator,
  evaluate,
  type LatentEvaluation,
} from "./sae/evaluation.js";
export { type DensityHistogram, type Metrics, MetricsAccumulator } from "./sae/metrics.js";
export type { ReconstructedBatch, ReconstructionOptions } from "./sae/reconstructions.js";
export { type PretrainedOptions, Sae, type SaeCreateOptions, type SaeMetadata } from "./sae/sae.js";
export type { SaeLoadOptions } from "./sae/storedSae.js";
// latents changed while a model runs or writes
export {
  type ChosenPositions,
  type InterventionOptions,
  interventions,
  latentIntervention,
} from "./steering/interventions.js";
export type { LatentChange } from "./steering/latentChange.js";
export {
  type SteeredPart,
  type SteeredTexts,
  type SteeringOptions,
  type SteeringTrial,
  steer,
} from "./steering/steering.js";
export { steeringHtml } from "./steering/steeringPage.js";
export { type SteeringReport, steeringText } from "./steering/steeringReport.js";
// synthetic data with known features, and what an SAE recovers of them
export { maximumAssignment } from "./toy/linearAssignment.js";
export { heldOutSample, measureRecovery, type Recovery } from "./toy/recovery.js";
export { compareDirections, type DirectionRecovery } from "./toy/recoveryDirections.js";
export type { FiringRecovery } from "./toy/recoveryFiring.js";
// toy models of superposition
export {
  type FeatureDirections,
  measureSuperposition,
  nearestGeometry,
  type SuperpositionGeometry,
  type SuperpositionMeasures,
  superpositionGeometries,
} from "./toy/superpositionMeasures.js";
export {
  geometricImportance,
  type SuperpositionModel,
  type SuperpositionOutput,
  type SuperpositionShape,
  type SuperpositionTask,
} from "./toy/superpositionModel.js";
export { type ModelPictureOptions, superpositionModelPicture } from "./toy/superpositionModelPicture.js";
export { phaseDiagramPageHtml, superpositionPageHtml } from "./toy/superpositionPage.js";
export { phaseDiagramPicture } from "./toy/superpositionPhasePicture.js";
export {
  type PhaseDiagram,
  type PhaseDiagramOptions,
  type PhasePoint,
  type SuperpositionPhase,
  type TrainedPhase,
  theoreticalPhase,
  trainPhaseDiagram,
} from "./toy/superpositionPhases.js";
export { type Picture, pictureElement, pictureFile } from "./toy/superpositionPicture.js";
export { geometryText, type SuperpositionEntry, type SuperpositionReport } from "./toy/superpositionReport.js";
export {
  dimensionsPerFeaturePicture,
  featureDimensionalityPicture,
  type SparsityPoint,
  type SparsitySeries,
} from "./toy/superpositionSweepPicture.js";
export {
  type SuperpositionProgress,
  type SuperpositionTrainingOptions,
  trainSuperposition,
} from "./toy/superpositionTraining.js";
export { SyntheticActivations } from "./toy/syntheticActivations.js";
export { parseSyntheticConfig, type SyntheticConfig, type SyntheticOptions } from "./toy/syntheticConfig.js";
export { loadSyntheticModel, saveSyntheticModel, writeSynthetic } from "./toy/syntheticFiles.js";
export { SyntheticModel, type SyntheticTruth } from "./toy/syntheticModel.js";
// training
export {
  type DataConfig,
  hooksNeeded,
  type ModelDataConfig,
  parseConfig,
  type RunConfig,
  type StoredDataConfig,
  type TrainingConfig,
} from "./training/config.js";
export type { StepMeasures } from "./training/saeTraining.js";
export { Trainer, type TrainerOptions, type TrainingProgress } from "./training/trainer.js";
